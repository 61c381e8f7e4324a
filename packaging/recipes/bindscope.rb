# Homebrew: brew install --build-from-source ./bindscope.rb, with the release's source archive beside it. Not built in CI,
# which only parses it.
class Bindscope < Formula
  desc "Shows which network interface every accepted connection really arrived on"
  version "0.1.0"
  url "file://#{File.expand_path("bindscope-0.1.0.crate", __dir__)}"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args
    system bin/"bindscope", "man", "--directory", "man"
    man1.install Dir["man/man1/*"]
    man5.install Dir["man/man5/*"]
    generate_completions_from_executable(bin/"bindscope", "completions")
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/bindscope --version")
    system bin/"bindscope", "interfaces"
  end
end

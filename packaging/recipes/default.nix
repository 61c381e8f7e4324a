# Nix: nix-build packaging/recipes/default.nix. Not built in CI, which only parses it.
{ pkgs ? import <nixpkgs> { } }:

pkgs.rustPlatform.buildRustPackage {
  pname = "bindscope";
  version = (builtins.fromTOML (builtins.readFile ../../Cargo.toml)).package.version;
  src = pkgs.lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  cargoBuildFlags = [ "--package" "bindscope" ];
  nativeBuildInputs = [ pkgs.installShellFiles ];

  # The tests make network namespaces, which the sandbox of Nix refuses.
  doCheck = false;

  postInstall = ''
    $out/bin/bindscope man --directory man
    installManPage man/man1/* man/man5/*
    installShellCompletion --cmd bindscope \
      --bash <($out/bin/bindscope completions bash) \
      --zsh <($out/bin/bindscope completions zsh) \
      --fish <($out/bin/bindscope completions fish)
  '';

  meta = {
    description = "Shows which network interface every accepted connection really arrived on";
    license = with pkgs.lib.licenses; [ mit asl20 ];
    mainProgram = "bindscope";
  };
}

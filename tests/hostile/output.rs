//! Output goes where the user said, and nowhere else.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::support::program::{bindscope, finish, text};
use crate::{as_root, directory_of_nobody, give_to_nobody, run_in, shell};

fn is_report(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|report| report["schema"] == "bindscope.interfaces/1")
}

/// Whatever a descriptor is called and whatever it is, the report goes there.
#[test]
fn descriptors_are_written_to() {
    for (arguments, redirect) in [
        ("-o /dev/stdout", "> report"),
        ("-o /dev/stdout", ">> report"),
        ("-o -", "> report"),
        ("-o /dev/fd/1", "> report"),
        ("-o /dev/stderr", "2> report"),
        ("-o /dev/fd/7", "7> report"),
        ("-o /proc/self/fd/7", "7> report"),
        ("-o /proc/thread-self/fd/1", "> report"),
        ("-o //dev/../dev/./fd/1", "> report"),
        ("-o to-stdout", "> report"),
        ("-o /dev/stdout", "| cat > report"),
        ("-o /dev/stderr", "2>&1 > /dev/null | cat > report"),
    ] {
        let place = tempfile::tempdir().unwrap();
        symlink("/dev/stdout", place.path().join("to-stdout")).unwrap();
        let script = format!(
            "$B interfaces --format json {arguments} {redirect} || exit 1; [ -L /dev/stdout ] && [ -L /dev/stderr ] && [ -L to-stdout ]"
        );
        let output = shell(place.path(), &script);
        assert!(output.status.success(), "{arguments} {redirect}: {:?}", text(&output));
        assert!(is_report(&fs::read(place.path().join("report")).unwrap()), "{arguments} {redirect}");
    }
}

#[test]
fn a_socket_as_standard_output_is_written_to() {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = bindscope(&["interfaces", "--format", "json", "-o", "/dev/stdout"]);
    let child = command.stdout(std::os::fd::OwnedFd::from(theirs)).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut read = Vec::new();
    ours.read_to_end(&mut read).unwrap();
    assert!(finish(child).status.success());
    assert!(is_report(&read));
}

/// A redirection appends where the shell said so: the file is not opened a second time.
#[test]
fn a_descriptor_keeps_its_offset() {
    let place = tempfile::tempdir().unwrap();
    let script = "(echo before; $B interfaces --format json -o /dev/stdout; echo after) > report";
    assert!(shell(place.path(), script).status.success());
    let report = fs::read_to_string(place.path().join("report")).unwrap();
    let report = report.strip_prefix("before\n").unwrap().strip_suffix("after\n").unwrap();
    assert!(is_report(report.as_bytes()));
}

/// What is closed, open only to read, or opened by the program itself is not output.
#[test]
fn descriptors_that_are_not_output_are_refused() {
    let place = tempfile::tempdir().unwrap();
    for (arguments, redirect) in [
        ("-o /dev/fd/9", ""),
        ("-o /dev/fd/3", ""),
        ("-o /dev/fd/9", "9< /dev/zero"),
        ("-o /dev/stdout", ">&-"),
        ("-o -", ">&-"),
        ("-o /dev/fd/2147483648", ""),
    ] {
        let output = shell(place.path(), &format!("$B interfaces --format json {arguments} {redirect}"));
        assert_eq!(output.status.code(), Some(5), "{arguments} {redirect}: {:?}", text(&output));
        assert!(text(&output).1.contains("BS4"), "{:?}", text(&output));
    }
}

/// A FIFO is neither replaced nor waited for; with a reader the report goes through it.
#[test]
fn a_fifo_without_a_reader_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let fifo = place.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    symlink("fifo", place.path().join("link")).unwrap();
    for arguments in [
        &["interfaces", "--format", "json", "-o", "fifo"][..],
        &["interfaces", "--format", "json", "-o", "link"],
        &["audit", "-o", "fifo"],
        &["plan", "loopback", "-o", "./fifo"],
        &["init", "--force", "fifo"],
        &["listen", "--bind", "127.0.0.1:0", "--for", "1s", "-o", "fifo"],
    ] {
        let output = run_in(place.path(), arguments);
        assert_eq!(output.status.code(), Some(5), "{arguments:?} {:?}", text(&output));
        assert!(text(&output).1.contains("FIFO"), "{arguments:?} {:?}", text(&output));
    }
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    // The reader's open(2) waits for a writer: until it does, there is no reader.
    let written = (0..2000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        run_in(place.path(), &["interfaces", "--format", "json", "-o", "link"]).status.success()
    });
    assert!(written && is_report(&reader.join().unwrap()));
}

/// New files only: neither a file, nor a link that leads nowhere, is written over.
#[test]
fn new_files_replace_nothing() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "old").unwrap();
    symlink("nowhere", place.path().join("link")).unwrap();
    for (arguments, exit) in [(&["audit", "--write-policy"][..], 5), (&["init"], 2)] {
        for name in ["file", "link"] {
            let output = run_in(place.path(), &[arguments, &[name]].concat());
            assert_eq!(output.status.code(), Some(exit), "{arguments:?} {name} {:?}", text(&output));
        }
    }
    assert_eq!(fs::read_to_string(place.path().join("file")).unwrap(), "old");
    assert!(!place.path().join("nowhere").exists());
    assert!(run_in(place.path(), &["init", "new.toml"]).status.success());
    assert!(fs::read_to_string(place.path().join("new.toml")).unwrap().contains("[[listener]]"));
    let policy = run_in(place.path(), &["audit", "--write-policy", "/dev/stdout"]);
    assert!(text(&policy).0.contains("schema = 1"), "{:?}", text(&policy));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 3, "no parts are left");
}

/// Root writes through nothing that another user put there: a link is replaced by a report, and refused as a part of the path and by
/// what appends.
#[test]
fn root_follows_no_link_of_another_user() {
    if !as_root() {
        return;
    }
    let (outer, theirs) = directory_of_nobody();
    let precious = outer.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    fs::create_dir(outer.path().join("ours")).unwrap();
    let link = |to: &Path, name: &str| {
        let path = theirs.join(name);
        symlink(to, &path).unwrap();
        give_to_nobody(&path);
    };
    link(&precious, "out");
    link(Path::new("/dev/null"), "null");
    link(&outer.path().join("ours"), "way");
    // Root's link, in their directory: they choose which of root's links has this name.
    symlink(&precious, theirs.join("of-root")).unwrap();
    fs::hard_link(&precious, theirs.join("hard")).unwrap();
    for (name, exit) in [("out", 0), ("null", 0), ("of-root", 0), ("hard", 0), ("way/report", 5)] {
        let output = run_in(&theirs, &["interfaces", "--format", "json", "-o", name]);
        assert_eq!(output.status.code(), Some(exit), "{name} {:?}", text(&output));
    }
    for name in ["out", "null", "of-root", "hard"] {
        assert!(is_report(&fs::read(theirs.join(name)).unwrap()), "{name}");
        assert!(!theirs.join(name).is_symlink());
        fs::remove_file(theirs.join(name)).unwrap();
    }
    link(&precious, "out");
    symlink(&precious, theirs.join("of-root")).unwrap();
    fs::hard_link(&precious, theirs.join("hard")).unwrap();
    for name in ["out", "of-root", "hard", "way/log"] {
        let output = run_in(&theirs, &["listen", "--bind", "127.0.0.1:0", "--for", "100ms", "-o", name]);
        assert_eq!(output.status.code(), Some(5), "{name} {:?}", text(&output));
        assert!(text(&output).1.contains("65534"), "{name} {:?}", text(&output));
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    assert_eq!(fs::read_dir(outer.path().join("ours")).unwrap().count(), 0);
    // In a directory of root, a link of root is what an administrator made.
    symlink("ours", outer.path().join("way")).unwrap();
    let output = run_in(outer.path(), &["interfaces", "--format", "json", "-o", "way/report"]);
    assert!(output.status.success() && is_report(&fs::read(outer.path().join("ours/report")).unwrap()));
}

/// Two links are exchanged all the time: one leads to a device, the other to a file of root.
#[test]
fn a_race_of_links_does_not_lead_root_astray() {
    if !as_root() {
        return;
    }
    let (outer, theirs) = directory_of_nobody();
    let precious = outer.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    for (to, name) in [(Path::new("/dev/null"), "one"), (&precious, "other")] {
        symlink(to, theirs.join(name)).unwrap();
        give_to_nobody(&theirs.join(name));
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let directory = fs::File::open(&theirs).unwrap();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(&directory, "one", &directory, "other", flags);
            }
        });
        for command in ["interfaces", "listen"] {
            for _ in 0..40 {
                let arguments = match command {
                    "interfaces" => &["interfaces", "--format", "json", "-o", "one"][..],
                    _ => &["listen", "--bind", "127.0.0.1:0", "--for", "1ms", "-o", "one"],
                };
                run_in(&theirs, arguments);
                assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{command}");
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

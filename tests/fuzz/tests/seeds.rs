//! Replays the seeds, whole and damaged in simple ways, without an engine: what any compiler can do in a moment.

use std::path::PathBuf;

/// The seeds of a target: its own, and files of the repository that are good ones.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let directories: &[&str] = match target {
        "profile" => &["../../profiles", "../data/examples", "../data/mistakes"],
        "lab" => &["../../src/lab/topologies", "../data/mistakes"],
        "policy" => &["../data/examples", "../data/mistakes"],
        own => &[&format!("seeds/{own}")],
    };
    let mut seeds = Vec::new();
    for directory in directories.iter().map(|name| here.join(name)) {
        for entry in
            std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            seeds.push((path, bytes));
        }
    }
    seeds
}

#[test]
fn seeds_and_damaged_seeds_are_borne() {
    for (name, target) in bindscope_fuzz::TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for (path, bytes) in seeds {
            println!("{}", path.display());
            target(&bytes);
            let step = bytes.len().div_ceil(60).max(1);
            for at in (0..bytes.len()).step_by(step) {
                target(&bytes[..at]);
                for value in [0, b'"', b'\n', 0x7f, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] = value;
                    target(&damaged);
                }
            }
        }
    }
}

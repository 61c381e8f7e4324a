//! Links the unwinder into the program instead of loading `libgcc_s.so.1` at each start, which takes ten system calls, a dozen page
//! faults and a look into it for every symbol of the C library: 7 % of `interfaces --format csv` with one address. Compilers for
//! GNU systems bring both; nothing of the library is passed between the program and the C library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-lib=gcc_eh");
    }
}

//! Link arguments only: the object stays mapped once loaded (a host's dlclose must not unmap running threads' code), and
//! its soname carries the ABI version.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    if std::env::var_os("CARGO_FEATURE_CAPI").is_none() {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmlbridge.so.0");
    }
}

//! The header is the code: `include/mlbridge.h` is what cbindgen makes of `src/ffi`, `mlbridge.cdef` is the header
//! without its preprocessor, and the README's table of settings is the table in `src/config.rs`.
//!
//! `MLBRIDGE_BLESS=1 cargo test --release --test header` writes the files instead of comparing them.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The header as cbindgen makes it now.
fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["types.rs", "mod.rs"] {
        builder = builder.with_src(root().join("src/ffi").join(file));
    }
    let mut bytes = Vec::new();
    builder.generate().expect("src/ffi parses").write(&mut bytes);
    String::from_utf8(bytes).expect("UTF-8")
}

/// The header without what LuaJIT's and cffi's parsers do not read.
fn cdef(header: &str) -> String {
    let mut text = String::new();
    let mut in_comment = false;
    for line in header.lines() {
        let trimmed = line.trim();
        in_comment |= trimmed.starts_with("/*");
        let skipped = in_comment
            || trimmed.starts_with('#')
            || trimmed == "extern \"C\" {"
            || trimmed.starts_with("}  //");
        in_comment &= !trimmed.ends_with("*/");
        let cleaned = line.replace("MLB_MUST_USE ", "").replace("MLB_MUST_USE", "");
        if !skipped && !cleaned.trim().is_empty() {
            text.push_str(cleaned.trim_end());
            text.push('\n');
        }
    }
    text
}

fn check(path: &Path, wanted: &str) {
    if std::env::var_os("MLBRIDGE_BLESS").is_some() {
        std::fs::write(path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == wanted,
        "{} is out of date; run MLBRIDGE_BLESS=1 cargo test --release --test header",
        path.display()
    );
}

#[test]
fn the_header_is_the_code() {
    let header = generated();
    check(&root().join("include/mlbridge.h"), &header);
    check(&root().join("include/mlbridge.cdef"), &cdef(&header));
}

#[test]
fn every_item_of_the_header_is_documented() {
    let header = generated();
    let lines: Vec<&str> = header.lines().collect();
    let mut undocumented = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let begins_item = line.starts_with("typedef")
            || (line.contains(" mlb_") && line.ends_with('('))
            || line.ends_with("(void);");
        let above = lines[..at]
            .iter()
            .rev()
            .find(|above| !above.trim().is_empty() && !above.starts_with("MLB_MUST_USE"));
        if begins_item && !above.is_some_and(|above| above.trim().ends_with("*/")) {
            undocumented.push(*line);
        }
    }
    assert!(undocumented.is_empty(), "{undocumented:#?}");
    assert!(header.contains("mlb_classify_wire(") && header.contains("MLB_FLAG_MESSAGE = 32"));
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = ("<!-- settings -->\n", "<!-- /settings -->");
    let (before, rest) = readme.split_once(begin).expect("the README marks its table of settings");
    let (_, after) = rest.split_once(end).expect("the README marks the end of its table");
    let wanted = format!("{before}{begin}{}{end}{after}", mlbridge::config::reference());
    check(&path, &wanted);
}

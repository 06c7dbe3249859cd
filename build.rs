//! Tells the program which commit it is built from. Where there is no git, as in an image, the
//! variable EMBEDDING_RECOVERY_COMMIT may say it.

use std::path::Path;
use std::process::Command;

const VARIABLE: &str = "EMBEDDING_RECOVERY_COMMIT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // `sqlx::migrate!` reads the folder, and cargo does not see that by itself.
    println!("cargo::rerun-if-changed=migrations");
    // Grows with each commit and each change of branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
    let told = std::env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let commit = told.or_else(|| git(&["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env={VARIABLE}={}", commit.as_deref().unwrap_or("unknown"));
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

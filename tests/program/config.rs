//! `config`, `completions` and `man`.

use serde_json::Value;

use crate::harness::program::{program, run};

/// Values that no output may have.
const SECRET: &str = "s3cret-0123456789";

#[tokio::test]
async fn config_says_where_each_value_comes_from_and_no_secret() {
    let mut config = program(&["config", "--json", "--stall-secs", "77"]);
    config
        .env("DATABASE_URL", format!("postgres://ann:{SECRET}@db/calls?password={SECRET}"))
        .env("OPENAI_API_KEY", SECRET)
        .env("OPENAI_HEADERS", format!("X-One: {SECRET}\nX-Two: {SECRET}"))
        .env("OPENAI_BASE_URL", format!("https://user:{SECRET}@api.example.com/v1?key={SECRET}"))
        .env("EMBEDDING_RECOVERY_STALL_SECS", "55")
        .env("EMBEDDING_RECOVERY_LEASE_SECS", "90");
    let ended = run(&mut config).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET), "{ended:?}");
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    let of = |flag: &str| {
        let all = told["settings"].as_array().unwrap().iter();
        let found: Vec<&Value> = all.filter(|setting| setting["flag"] == flag).collect();
        assert_eq!(found.len(), 1, "{flag}: {found:?}");
        (found[0]["value"].clone(), found[0]["source"].as_str().unwrap().to_owned())
    };
    let told_as = |value: &str, source: &str| (Value::from(value), source.to_owned());
    assert_eq!(of("--stall-secs"), told_as("77", "flag"));
    assert_eq!(of("--lease-secs"), told_as("90", "variable"));
    assert_eq!(of("--grace-secs"), told_as("20", "default"));
    assert_eq!(of("--embedding-model"), told_as("text-embedding-3-small", "default"));
    assert_eq!(of("--openai-ca-file"), (Value::Null, "not set".to_owned()));
    assert_eq!(of("--openai-api-key"), told_as("…", "variable"));
    assert_eq!(of("--database-url"), told_as("postgres://ann:***@db/calls?***", "variable"));
    assert_eq!(told["embedder"], "text-embedding-3-small at api.example.com");
}

#[tokio::test]
async fn a_variable_that_cannot_be_meant_is_told_among_the_others_without_its_value() {
    let mut config = program(&["config"]);
    config
        .env("EMBEDDING_RECOVERY_LEASE_SECS", "soon")
        .env("OPENAI_BASE_URL", format!("no url {SECRET}"))
        .env("OPENAI_API_KEY_FILE", "/no/such/file");
    let ended = run(&mut config).await;
    assert_eq!(ended.code, Some(64), "{ended:?}");
    for told in [
        "refused: EMBEDDING_RECOVERY_LEASE_SECS: ",
        "refused: OPENAI_BASE_URL: ",
        "cannot embed: OPENAI_API_KEY_FILE /no/such/file: ",
        "--lease-secs                120  (default)",
    ] {
        assert!(ended.stdout.contains(told), "{told}: {ended:?}");
    }
    assert!(!ended.stdout.contains(SECRET) && !ended.stderr.contains(SECRET), "{ended:?}");
    // A wrong flag is wrong use all the same.
    let flag = run(&mut program(&["config", "--lease-secs", "soon"])).await;
    assert_eq!((flag.code, flag.stdout.as_str()), (Some(64), ""), "{flag:?}");
}

#[tokio::test]
async fn headers_and_certificates_that_cannot_be_used_are_named_before_anything_starts() {
    let directory = tempfile::tempdir().unwrap();
    let no_pem = directory.path().join("not.pem");
    std::fs::write(&no_pem, SECRET).unwrap();
    let no_pem = no_pem.to_string_lossy();
    for (variable, value, told) in [
        ("OPENAI_CA_FILE", "/no/such.pem", "OPENAI_CA_FILE /no/such.pem: "),
        ("OPENAI_CA_FILE", &*no_pem, "has no certificate in PEM"),
        ("OPENAI_HEADERS", "X-One s3cret-0123456789", "a header without a colon"),
        ("OPENAI_HEADERS", "Content-Type: text/plain", "Content-Type is written by the program"),
    ] {
        let mut serve = program(&["serve"]);
        let ended = run(serve.env("OPENAI_API_KEY", "sk-test").env(variable, value)).await;
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains(told) && !ended.stderr.contains(SECRET), "{ended:?}");
    }
}

#[tokio::test]
async fn completions_are_valid_and_know_every_command() {
    let directory = tempfile::tempdir().unwrap();
    let commands = ["migrate", "import", "enqueue", "serve", "verify", "config"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = run(&mut program(&["completions", shell])).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for command in commands {
            assert!(ended.stdout.contains(command), "{shell} does not know {command}");
        }
        assert!(ended.stdout.contains("--lease-secs") || shell == "fish", "{shell}");
        if shell == "bash" {
            let script = directory.path().join("completions");
            std::fs::write(&script, &ended.stdout).unwrap();
            let checked = std::process::Command::new("bash").arg("-n").arg(&script).output();
            match checked {
                Ok(checked) => assert!(checked.status.success(), "{checked:?}"),
                Err(error) => println!("not checked by bash: {error}"),
            }
        }
    }
    assert_eq!(run(&mut program(&["completions", "csh"])).await.code, Some(64));
}

#[tokio::test]
async fn there_is_a_manual_page_for_the_program_and_each_command() {
    let page = run(&mut program(&["man"])).await;
    assert_eq!(page.code, Some(0));
    assert!(page.stdout.contains(".TH embedding-recovery 1"), "{}", page.stdout);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    let written = run(&mut program(&["man", "--out", &out.to_string_lossy()])).await;
    assert_eq!(written.code, Some(0), "{written:?}");
    let help = run(&mut program(&["--help"])).await.stdout;
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for line in listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
        let command = line.split_whitespace().next().unwrap();
        if command == "help" {
            continue;
        }
        assert!(page.stdout.contains(&format!("embedding\\-recovery\\-{command}")), "{command}");
        let page = out.join(format!("embedding-recovery-{command}.1"));
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains("Examples:"), "{command} shows no example");
    }
    let refused = run(&mut program(&["man", "--out", "/dev/null/man"])).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("cannot write manual pages into /dev/null/man"), "{refused:?}");
}

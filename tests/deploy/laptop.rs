//! The README's way to a laptop's cluster. Its commands cannot be run here; what they name must be there,
//! and what they have the program do is done, without the cluster around it.

use std::fs::{File, read_to_string};

use super::rules::of_kind;
use super::{at, parsed, rendered, root};
use crate::harness::TestDatabase;
use crate::harness::program::run;

fn commands() -> Vec<String> {
    let readme = read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("<!-- laptop -->\n```sh\n").expect("the marked block");
    rest.split("\n```").next().unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_commands_name_what_is_there() {
    let commands = commands();
    let words: Vec<&str> = commands.iter().flat_map(|line| line.split_whitespace()).collect();
    let paths = words.iter().filter(|word| word.contains('/') && !word.contains("deployment/"));
    let paths: Vec<&str> = paths.map(|word| word.trim_start_matches('<')).collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    for path in paths.iter().filter(|path| !path.starts_with('/')) {
        assert!(root().join(path).exists(), "{path} is not there");
    }
    // The program's path is the image's entry point.
    let image = read_to_string(root().join("deploy/Dockerfile")).unwrap();
    let program = paths.iter().find(|path| path.starts_with('/')).unwrap();
    assert!(image.contains(&format!("ENTRYPOINT [\"{program}\"]")), "{program}");

    let Some(yaml) = rendered("demo") else { return };
    let objects = parsed(&yaml);
    let deployment = of_kind(&objects, "Deployment").next().unwrap();
    let built = words.iter().position(|word| *word == "-t").map(|at| words[at + 1]);
    let wanted = at(deployment, "/spec/template/spec/containers/0/image").as_str();
    assert_eq!(built, wanted, "the image that is built is not the one that runs");
    assert_eq!(words.iter().filter(|word| Some(**word) == wanted).count(), 2, "built and loaded");
    let namespaces = words.iter().enumerate().filter(|(_, word)| **word == "-n");
    for (position, _) in namespaces {
        assert_eq!(at(deployment, "/metadata/namespace"), words[position + 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_calls_go_in_through_a_pipe_and_are_embedded_without_a_key() {
    let import = commands().into_iter().find(|line| line.contains(" import ")).expect("an import");
    let (_, args) = import.split_once(" -- /embedding-recovery ").expect("the program");
    let (args, file) = args.split_once(" <").expect("a file");
    let args: Vec<&str> = args.split_whitespace().collect();
    let database = TestDatabase::new().await;
    let mut piped = database.program(&args);
    let imported = run(piped.stdin(File::open(root().join(file)).unwrap())).await;
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let mut serve = database.program(&["serve", "--exit-when-idle"]);
    let served = run(serve.env("EMBEDDING_MODEL", "local")).await;
    assert_eq!(served.code, Some(0), "{served:?}");
    let searchable = "select count(distinct recording_id) from searchable_chunks";
    assert!(database.value::<i64>(searchable).await >= 3, "the page would be empty");
}

//! A real PgBouncer before a test's database, where one is installed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::postgres::PgConnectOptions;

use super::{TestDatabase, eventually, skipped};

/// The running pooler; ended with it.
pub struct PgBouncer {
    pub url: String,
    child: Child,
    _directory: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts one in this mode, with these further settings; `None` with a printed reason where it
    /// is not installed.
    pub async fn before(database: &TestDatabase, mode: &str, further: &str) -> Option<Self> {
        let Some(program) = program() else {
            skipped("pgbouncer is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = directory.path().join("pgbouncer.ini");
        std::fs::write(&settings, ini(database, mode, further, port)).unwrap();
        readable(directory.path());
        let mut child = Command::new(program)
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the pooler listens", async || {
            assert_eq!(child.try_wait().unwrap(), None, "the pooler ended");
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        let name = url::Url::parse(&database.url).unwrap().path().to_owned();
        let url = format!("postgres://anybody@127.0.0.1:{port}{name}");
        Some(Self { url, child, _directory: directory })
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian has it where only root's PATH looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join("pgbouncer")).find(|file| file.is_file())
}

fn ini(database: &TestDatabase, mode: &str, further: &str, port: u16) -> String {
    let url = url::Url::parse(&database.url).unwrap();
    let options: PgConnectOptions = database.url.parse().unwrap();
    let host = match options.get_socket() {
        Some(folder) => folder.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let (user, server_port) = (options.get_username(), options.get_port());
    let password = url.password().map(|word| format!(" password={word}")).unwrap_or_default();
    // As root it must be told whom to become: the one that the server's socket belongs to.
    let become_user = if is_root() { "user = nobody\n" } else { "" };
    format!(
        "[databases]\n* = host={host} port={server_port} user={user}{password}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = {mode}\ndefault_pool_size = 5\n{become_user}{further}\n"
    )
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

fn readable(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

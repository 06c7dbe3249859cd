//! `probe`: asks the service beside it how it is. An image without a shell has nothing else to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::EXIT_FAILED;

/// The service answers within 2 s; what takes longer is no answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// An answer is a line or two.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Ask the service on this machine whether it is alive, or ready to work.
///
/// For a container's health check; a cluster asks over HTTP itself. Exit codes: 0 it is; 1 it is not,
/// or nobody answers; 64 wrong use.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  embedding-recovery probe live
  embedding-recovery probe ready --probe-listen 127.0.0.1:9464")]
pub(super) struct Args {
    /// What to ask
    #[arg(value_enum)]
    question: Question,

    /// Where the service's `/livez` and `/readyz` listen
    #[arg(
        long,
        env = "EMBEDDING_RECOVERY_PROBE_LISTEN",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:9464"
    )]
    probe_listen: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Question {
    /// Does the process work at all?
    Live,
    /// Can it work: is the database there, and does it fit?
    Ready,
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
        }
    }
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let address = reachable(args.probe_listen);
    let answer = tokio::time::timeout(ANSWER_TIME, ask(address, args.question.path())).await;
    let answer = match answer {
        Ok(answer) => answer.with_context(|| format!("nobody answers on {address}"))?,
        Err(_) => bail!("{address} does not answer within {} s", ANSWER_TIME.as_secs()),
    };
    println!("{}", answer.body.trim());
    Ok(if answer.well { ExitCode::SUCCESS } else { EXIT_FAILED.into() })
}

struct Answer {
    well: bool,
    body: String,
}

/// HTTP/1.0, so that the answer ends with the connection.
async fn ask(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1);
    Ok(Answer { well: status == Some("200"), body: body.to_owned() })
}

/// What listens on every address is asked on the machine's own.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let own: IpAddr = match listening.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(own, listening.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_on_this_machine() {
        for (listening, asked) in [
            ("0.0.0.0:9464", "127.0.0.1:9464"),
            ("[::]:9464", "[::1]:9464"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(reachable(listening.parse().expect(listening)).to_string(), asked);
        }
    }
}

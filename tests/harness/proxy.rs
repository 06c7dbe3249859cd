//! A network between the program and a server that can be cut, slowed, or left half open.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::TestDatabase;

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Fine,
    /// Each piece comes this much later.
    Slow(Duration),
    /// Connections stand and are accepted, and nothing passes. What was underway is lost: they
    /// break when the weather changes.
    HalfOpen,
    /// Connections break, new ones too.
    Cut,
}

/// Where connections lead.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// Host and port.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

/// A running proxy; gone when dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    upstream: Arc<Mutex<Upstream>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of this host.
    pub async fn start(upstream: Upstream) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), upstream).await
    }

    /// Listens there.
    pub async fn start_at(address: SocketAddr, upstream: Upstream) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, watched) = watch::channel(Weather::Fine);
        let upstream = Arc::new(Mutex::new(upstream));
        let leads_to = upstream.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = leads_to.lock().unwrap().clone();
                tokio::spawn(carry(client, target, watched.clone()));
            }
        });
        Self { address, weather, upstream, accepting }
    }

    /// Changes the weather for standing and new connections.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// New connections lead there.
    pub fn lead_to(&self, upstream: Upstream) {
        *self.upstream.lock().unwrap() = upstream;
    }
}

impl TestDatabase {
    /// A network of its own to this database, and the URL that leads through it.
    pub async fn behind_proxy(&self) -> (Proxy, String) {
        let options = self.pool.connect_options();
        let port = options.get_port();
        let upstream = match options.get_socket() {
            Some(directory) => Upstream::Unix(directory.join(format!(".s.PGSQL.{port}"))),
            None => Upstream::Tcp(
                tokio::net::lookup_host((options.get_host(), port)).await.unwrap().next().unwrap(),
            ),
        };
        let proxy = Proxy::start(upstream).await;
        let own: url::Url = self.url.parse().unwrap();
        let mut url: url::Url = "postgres://x/".parse().unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(proxy.address.port())).unwrap();
        url.set_username(own.username()).unwrap();
        url.set_password(own.password()).unwrap();
        url.set_path(own.path());
        (proxy, url.to_string())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(client: TcpStream, target: Upstream, weather: watch::Receiver<Weather>) {
    if *weather.borrow() == Weather::Cut {
        return;
    }
    match target {
        Upstream::Tcp(address) => {
            if let Ok(server) = TcpStream::connect(address).await {
                let (read, write) = server.into_split();
                both_ways(client, read, write, weather).await;
            }
        }
        Upstream::Unix(path) => {
            if let Ok(server) = UnixStream::connect(path).await {
                let (read, write) = server.into_split();
                both_ways(client, read, write, weather).await;
            }
        }
    }
}

/// Ends when either side does, and so closes both.
async fn both_ways(
    client: TcpStream,
    server_read: impl AsyncRead + Unpin,
    server_write: impl AsyncWrite + Unpin,
    weather: watch::Receiver<Weather>,
) {
    let (client_read, client_write) = client.into_split();
    tokio::select! {
        () = pump(client_read, server_write, weather.clone()) => {}
        () = pump(server_read, client_write, weather) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let now = *weather.borrow_and_update();
        match now {
            Weather::Cut => return,
            Weather::HalfOpen => {
                let _ = weather.changed().await;
                return;
            }
            Weather::Fine | Weather::Slow(_) => {}
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = weather.changed() => match changed { Ok(()) => continue, Err(_) => return },
        };
        let Ok(length @ 1..) = read else { return };
        if let Weather::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

impl TestDatabase {
    /// A network to the server, and this database's URL over it.
    pub async fn over_a_network(&self) -> (Proxy, String) {
        let proxy = Proxy::start(self.server()).await;
        let url = self.url_at(proxy.address);
        (proxy, url)
    }

    /// Where the server is.
    pub fn server(&self) -> Upstream {
        let options: PgConnectOptions = self.url.parse().unwrap();
        match options.get_socket() {
            Some(folder) => Upstream::Unix(folder.join(format!(".s.PGSQL.{}", options.get_port()))),
            None => {
                let mut addresses =
                    (options.get_host(), options.get_port()).to_socket_addrs().unwrap();
                Upstream::Tcp(addresses.next().unwrap())
            }
        }
    }

    /// This database's URL over a proxy at `address`.
    pub fn url_at(&self, address: SocketAddr) -> String {
        let own: url::Url = self.url.parse().unwrap();
        let password = own.password().map(|word| format!(":{word}")).unwrap_or_default();
        format!("postgres://{}{password}@{address}{}?sslmode=disable", own.username(), own.path())
    }
}

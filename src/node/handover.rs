//! Restarts in place: the process executes the program on disk again and leaves it its sockets.
//!
//! The process that ends stops deciding, saves everything, writes down what it leaves (a [`Manifest`], in
//! memory that the next program inherits) and executes that. Pid, parent and descriptors stay, so that this
//! works under systemd, under supervisord, in containers and in a shell. At no time do two processes decide
//! announces, and no socket is ever closed: clients wait, in the kernel's queues or in a [`Spool`].

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::listen::http::HandedConnection;
use crate::listen::udp::{Datagram, Spool};
use crate::net::inherited::{
    InheritedSocket, adopt, connection, from_service_manager, ignore_signals, keep_on_exec,
};

/// The variable that names the descriptor of the manifest, and the process that it is meant for.
const VARIABLE: &str = "MIKA_HANDOVER";

/// Variables that are meant for this process alone.
const OWN_VARIABLES: [&str; 4] = [VARIABLE, "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

/// How long the program on disk may take to check the config.
const CHECK_TIMEOUT: Duration = Duration::from_secs(30);
const CHECK_POLL: Duration = Duration::from_millis(20);

/// The program to execute at a restart in place: the one on disk then, with this process's arguments.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// The name of the program first.
    arguments: Vec<OsString>,
}

/// The sockets that a start got instead of opening them.
#[derive(Default)]
pub struct Inherited {
    listeners: Vec<(SocketAddr, TcpListener)>,
    udp: Vec<(SocketAddr, UdpSocket, Spool)>,
    pub(super) connections: Vec<HandedConnection>,
    /// The swarms, where nothing else keeps them.
    pub(super) swarms: Option<File>,
}

/// Reads the packets of inherited sockets while the node loads.
pub(super) struct EarlyReaders {
    stop: Arc<AtomicBool>,
    threads: Vec<Option<JoinHandle<Spool>>>,
}

/// What a process leaves to the next one.
#[derive(Default)]
pub(super) struct Legacy {
    pub listeners: Vec<TcpListener>,
    pub udp: Vec<(UdpSocket, Spool)>,
    pub connections: Vec<HandedConnection>,
    pub swarms: Option<File>,
}

/// The next process, to be executed in place of this one.
pub struct Successor {
    program: Program,
    manifest: File,
    _descriptors: Vec<OwnedFd>,
}

/// What the next process has to know of the descriptors that it inherits. Another version may read it:
/// fields that it does not know are skipped, and those that it misses are empty.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Manifest {
    /// The version that wrote it.
    version: String,
    listeners: Vec<RawFd>,
    udp: Vec<UdpEntry>,
    connections: Vec<ConnectionEntry>,
    swarms: Option<RawFd>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct UdpEntry {
    socket: RawFd,
    #[serde(default)]
    datagrams: Vec<DatagramEntry>,
}

/// A packet that was read and not answered.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct DatagramEntry {
    at: i64,
    source: SocketAddr,
    destination: Option<IpAddr>,
    /// Base64, as `pending` below.
    packet: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ConnectionEntry {
    socket: RawFd,
    client: IpAddr,
    #[serde(default)]
    pending: String,
    #[serde(default)]
    body_left: u64,
}

// === impl Program ===

impl Program {
    /// The one that runs, by its path of now: a new version will be there.
    ///
    /// # Errors
    /// The system does not say which it is.
    pub fn current(arguments: Vec<OsString>) -> io::Result<Self> {
        let path = env::current_exe()?;
        Ok(Self { path, arguments })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some((name, arguments)) = self.arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        for variable in OWN_VARIABLES {
            command.env_remove(variable);
        }
        command
    }

    /// Whether the program on disk accepts the config: if not, the running one had better go on.
    ///
    /// # Errors
    /// What it says, or why it can't be executed.
    pub(super) async fn check(&self) -> Result<()> {
        let path = self.path.display();
        let child = self
            .command()
            .arg("--check")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.with_context(|| format!("can't execute {path}"))?;
        let waited = tokio::time::timeout(CHECK_TIMEOUT, until_exit(&mut child)).await;
        let Ok(status) = waited else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{path} --check takes too long");
        };
        if status?.success() {
            return Ok(());
        }
        let mut problem = String::new();
        if let Some(stderr) = child.stderr.take() {
            stderr.take(4096).read_to_string(&mut problem)?;
        }
        bail!("{path} does not accept the config: {}", problem.trim());
    }
}

async fn until_exit(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(CHECK_POLL).await;
    }
}

// === impl Inherited ===

impl Inherited {
    /// What the process before this one left, or else the service manager. To be called once, before
    /// anything else is opened.
    ///
    /// # Errors
    /// What is inherited can't be used, and why.
    pub fn take() -> Result<Self> {
        if let Some(number) = manifest_number() {
            let file = adopt(number).context("the manifest of the restart")?;
            return Self::read(File::from(file));
        }
        let mut inherited = Self::default();
        let passed = from_service_manager().context("LISTEN_FDS")?;
        for (number, descriptor) in passed.into_iter().enumerate() {
            let name = || format!("socket {number} of the service manager (LISTEN_FDS)");
            inherited.add(descriptor, Spool::default(), name)?;
        }
        Ok(inherited)
    }

    fn read(mut file: File) -> Result<Self> {
        let mut text = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut text)?;
        let manifest = serde_json::from_slice(&text).context("the manifest of the restart")?;
        let Manifest {
            version: _,
            listeners,
            udp,
            connections,
            swarms,
        } = manifest;
        let mut inherited = Self::default();
        for number in listeners {
            let name = || format!("descriptor {number}");
            inherited.add(adopt(number)?, Spool::default(), name)?;
        }
        for UdpEntry { socket, datagrams } in udp {
            let mut spool = Spool::default();
            datagrams
                .into_iter()
                .filter_map(DatagramEntry::decoded)
                .for_each(|datagram| spool.push(datagram));
            let name = || format!("descriptor {socket}");
            inherited.add(adopt(socket)?, spool, name)?;
        }
        // A client may have gone meanwhile.
        let connections = connections.into_iter().filter_map(ConnectionEntry::adopted);
        inherited.connections = connections.collect();
        let swarms = swarms.map(adopt).transpose()?;
        inherited.swarms = swarms.map(File::from);
        Ok(inherited)
    }

    fn add(&mut self, descriptor: OwnedFd, spool: Spool, name: impl Fn() -> String) -> Result<()> {
        match InheritedSocket::of(descriptor).with_context(name)? {
            InheritedSocket::Listener(listener, address) => {
                self.listeners.push((address, listener));
            }
            InheritedSocket::Udp(socket, address) => self.udp.push((address, socket, spool)),
        }
        Ok(())
    }

    /// The listeners at an address.
    pub(super) fn listeners(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let taken = self.listeners.extract_if(.., |(at, _)| *at == address);
        taken.map(|(_, listener)| listener).collect()
    }

    /// The UDP sockets at an address, with what was read from them.
    pub(super) fn udp(&mut self, address: SocketAddr) -> Vec<(UdpSocket, Spool)> {
        let taken = self.udp.extract_if(.., |(at, ..)| *at == address);
        taken.map(|(_, socket, spool)| (socket, spool)).collect()
    }

    /// Closes the sockets that were not taken.
    pub(super) fn close_rest(&mut self) {
        let listeners = self.listeners.drain(..).map(|(address, _)| address);
        let udp = self.udp.drain(..).map(|(address, ..)| address);
        for address in listeners.chain(udp) {
            tracing::warn!(%address, "closed an inherited socket: the config does not have its address");
        }
    }
}

/// The descriptor of the manifest, if there is one for this process.
fn manifest_number() -> Option<RawFd> {
    let text = env::var(VARIABLE).ok()?;
    let (number, pid) = text.split_once(' ')?;
    let is_own = pid.parse() == Ok(std::process::id());
    number.parse().ok().filter(|_| is_own)
}

// === impl EarlyReaders ===

impl EarlyReaders {
    /// A thread for each socket that has a spool, which may have packets already.
    pub fn start(sockets: &[UdpSocket], spools: Vec<Option<Spool>>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = Self {
            stop: Arc::clone(&stop),
            threads: Vec::new(),
        };
        for (socket, spool) in sockets.iter().zip(spools) {
            let Some(mut spool) = spool else {
                readers.threads.push(None);
                continue;
            };
            let (socket, stop) = (socket.try_clone()?, Arc::clone(&stop));
            let thread = std::thread::Builder::new().name("early-udp".into());
            readers.threads.push(Some(thread.spawn(move || {
                spool.fill(&socket, || !stop.load(Ordering::Relaxed));
                spool
            })?));
        }
        Ok(readers)
    }

    /// Stops reading; returns a spool for each socket.
    pub fn finish(mut self) -> Vec<Spool> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        // A panic was logged, and its socket has only lost what was read.
        let joined = |thread: Option<JoinHandle<Spool>>| {
            let joined = thread.map(|thread| thread.join().unwrap_or_default());
            joined.unwrap_or_default()
        };
        threads.into_iter().map(joined).collect()
    }
}

impl Drop for EarlyReaders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

// === impl Legacy ===

impl Legacy {
    /// Packets that wait for the next process.
    pub fn packets(&self) -> usize {
        self.udp.iter().map(|(_, spool)| spool.len()).sum()
    }

    /// Writes it down for the next process.
    ///
    /// # Errors
    /// The system has no memory or no descriptor for it.
    pub fn leave_to(self, program: Program) -> io::Result<Successor> {
        let mut descriptors = Vec::new();
        let mut keep = |descriptor: OwnedFd| {
            keep_on_exec(&descriptor)?;
            let number = descriptor.as_raw_fd();
            descriptors.push(descriptor);
            io::Result::Ok(number)
        };
        let mut manifest = Manifest {
            version: env!("CARGO_PKG_VERSION").into(),
            ..Manifest::default()
        };
        for listener in self.listeners {
            manifest.listeners.push(keep(listener.into())?);
        }
        for (socket, spool) in self.udp {
            let datagrams = spool.into_datagrams();
            manifest.udp.push(UdpEntry {
                socket: keep(socket.into())?,
                datagrams: datagrams.iter().map(DatagramEntry::encoded).collect(),
            });
        }
        for connection in self.connections {
            let pending = BASE64.encode(&connection.pending);
            manifest.connections.push(ConnectionEntry {
                socket: keep(connection.stream.into())?,
                client: connection.client,
                pending,
                body_left: connection.body_left,
            });
        }
        if let Some(swarms) = self.swarms {
            manifest.swarms = Some(keep(swarms.into())?);
        }
        let mut file = File::from(memfd_create("mika-handover", MemfdFlags::empty())?);
        file.write_all(&serde_json::to_vec(&manifest)?)?;
        Ok(Successor {
            program,
            manifest: file,
            _descriptors: descriptors,
        })
    }
}

// === impl Successor ===

impl Successor {
    /// Executes the program in place of this one. Returns only if that fails.
    pub fn execute(self) -> anyhow::Error {
        let value = format!("{} {}", self.manifest.as_raw_fd(), std::process::id());
        ignore_signals();
        let error = self.program.command().env(VARIABLE, value).exec();
        let path = self.program.path.display();
        anyhow::Error::new(error).context(format!("can't execute {path}"))
    }
}

// === impl DatagramEntry ===

impl DatagramEntry {
    fn encoded(datagram: &Datagram) -> Self {
        Self {
            at: datagram.at,
            source: datagram.source,
            destination: datagram.destination,
            packet: BASE64.encode(&datagram.packet),
        }
    }

    fn decoded(self) -> Option<Datagram> {
        Some(Datagram {
            at: self.at,
            source: self.source,
            destination: self.destination,
            packet: BASE64.decode(self.packet.as_bytes()).ok()?.into(),
        })
    }
}

// === impl ConnectionEntry ===

impl ConnectionEntry {
    fn adopted(self) -> Option<HandedConnection> {
        Some(HandedConnection {
            stream: connection(adopt(self.socket).ok()?).ok()?,
            client: self.client,
            pending: BASE64.decode(self.pending.as_bytes()).ok()?,
            body_left: self.body_left,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn the_next_process_gets_sockets_packets_and_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (stream, client) = listener.accept().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_address = socket.local_addr().unwrap();
        let datagram = Datagram {
            at: 1_800_000_000,
            source: "[fe80::1%3]:6881".parse().unwrap(),
            destination: Some(address.ip()),
            packet: (0..=255).collect(),
        };
        let mut spool = Spool::default();
        spool.push(datagram.clone());
        let legacy = Legacy {
            listeners: vec![listener],
            udp: vec![(socket, spool)],
            connections: vec![HandedConnection {
                stream,
                client: client.ip(),
                pending: b"GET /\xff".to_vec(),
                body_left: 7,
            }],
            swarms: None,
        };
        assert_eq!(legacy.packets(), 1);
        let program = Program::current(vec!["mika".into()]).unwrap();
        let successor = legacy.leave_to(program).unwrap();
        let manifest = successor.manifest.try_clone().unwrap();
        // It would be the next process that owns the descriptors.
        std::mem::forget(successor);

        let mut inherited = Inherited::read(manifest).unwrap();
        assert_eq!(inherited.listeners(udp_address).len(), 0);
        assert_eq!(inherited.listeners(address).len(), 1);
        let mut udp = inherited.udp(udp_address);
        let (_, spool) = udp.pop().unwrap();
        assert_eq!(spool.into_datagrams(), [datagram]);
        let handed = inherited.connections.pop().unwrap();
        assert_eq!(handed.stream.peer_addr().unwrap(), client);
        assert_eq!((handed.client, handed.body_left), (client.ip(), 7));
        assert_eq!(handed.pending, b"GET /\xff");
    }

    #[test]
    fn manifests_of_other_versions_are_read() {
        let newer = r#"{"version": "9.0", "listeners": [7], "fresh": {"a": 1}, "connections": [],
            "udp": [{"socket": 8, "speed": 5}]}"#;
        let manifest: Manifest = serde_json::from_str(newer).unwrap();
        assert_eq!(manifest.listeners, [7]);
        let udp = &manifest.udp[0];
        assert_eq!((udp.socket, udp.datagrams.len()), (8, 0));
        let older: Manifest = serde_json::from_str(r#"{"listeners": [7]}"#).unwrap();
        assert_eq!(older.listeners, [7]);
        assert_eq!((older.udp.len(), older.connections.len()), (0, 0));
    }
}

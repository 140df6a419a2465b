//! Where connections come from: TCP addresses, unix sockets, sockets that systemd has opened.
//!
//! Promises that a unix socket nobody answers on is replaced and one that somebody answers on is not,
//! that its file has mode 0660 and goes away with the listener, and that a socket opened by others is
//! the one the configuration names. What is said on a connection is `server`'s affair.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use super::Peer;

/// Where a listener is, as the configuration writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A file.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port, where it has one.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listener that is bound and not yet served.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    /// Where it is, also where port 0 was asked for.
    pub address: Address,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Goes away with it, where it is ours.
        _file: Option<SocketFile>,
    },
}

/// Binds an address.
///
/// # Errors
/// Where the address is taken or not ours, with the address in the message.
pub async fn bind(address: &Address) -> io::Result<Bound> {
    let refused = |error: io::Error| cannot_listen(address, &error);
    match address {
        Address::Tcp(wanted) => {
            let listener = TcpListener::bind(wanted).await.map_err(refused)?;
            let address = listener.local_addr().map_err(refused)?.into();
            Ok(Bound { listener: Listener::Tcp(listener), address })
        }
        Address::Unix(path) => {
            make_room(path).await.map_err(refused)?;
            let listener = UnixListener::bind(path).map_err(refused)?;
            // Whatever the process's umask: those of its group may connect, others may not.
            fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(refused)?;
            let file = SocketFile::at(path).map_err(refused)?;
            Ok(Bound { listener: Listener::Unix { listener, _file: Some(file) }, address: address.clone() })
        }
    }
}

/// A socket that another process has opened for this one.
#[derive(Debug)]
pub struct Inherited {
    listener: Foreign,
    address: Address,
}

#[derive(Debug)]
enum Foreign {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Inherited {
    /// The first socket that systemd has opened (`LISTEN_FDS`), where it has. Forgets the variables, so
    /// it belongs before the first thread. Whether they are meant for this process is the caller's to
    /// know.
    ///
    /// # Errors
    /// Where it is not the one the configuration names: nothing may listen where no check has looked.
    pub fn from_env(wanted: &Address) -> io::Result<Option<Self>> {
        let mut given = ListenFd::from_env();
        if given.len() == 0 {
            return Ok(None);
        }
        let found = match wanted {
            Address::Tcp(_) => given.take_tcp_listener(0).and_then(|listener| listener.map(Self::tcp).transpose()),
            Address::Unix(_) => given.take_unix_listener(0).and_then(|listener| listener.map(Self::unix).transpose()),
        };
        let found = found.map_err(|error| not_wanted(&error.to_string(), wanted))?;
        match found {
            Some(found) if !is_wanted(&found.address, wanted) => {
                Err(not_wanted(&format!("it is {}", found.address), wanted))
            }
            found => Ok(found),
        }
    }

    fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?.into();
        Ok(Self { listener: Foreign::Tcp(listener), address })
    }

    fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let path = address.as_pathname().ok_or_else(|| io::Error::other("it has no path"))?.to_owned();
        Ok(Self { listener: Foreign::Unix(listener), address: Address::Unix(path) })
    }

    /// The listener, once there is a runtime to serve it. A socket's file stays its maker's, who goes on
    /// listening between two processes of ours.
    ///
    /// # Errors
    /// Where the runtime cannot watch it.
    pub fn adopt(self) -> io::Result<Bound> {
        let listener = match self.listener {
            Foreign::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Tcp(TcpListener::from_std(listener)?)
            }
            Foreign::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Unix { listener: UnixListener::from_std(listener)?, _file: None }
            }
        };
        Ok(Bound { listener, address: self.address })
    }
}

/// Port 0 is any port.
fn is_wanted(found: &Address, wanted: &Address) -> bool {
    match (found, wanted) {
        (Address::Tcp(found), Address::Tcp(wanted)) => {
            found.ip() == wanted.ip() && (wanted.port() == 0 || found.port() == wanted.port())
        }
        (found, wanted) => found == wanted,
    }
}

fn not_wanted(what: &str, wanted: &Address) -> io::Error {
    let way_out = "make ListenStream= of the .socket unit and listen.address the same";
    io::Error::other(format!(
        "the socket that was handed over is not {wanted}, which listen.address names: {what}; {way_out}"
    ))
}

/// Removes a socket that its process has left behind.
async fn make_room(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"))
        }
        Ok(_) => match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::from(io::ErrorKind::AddrInUse)),
        },
    }
}

/// A socket's file, removed with its listener, unless it is another's by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), identity: (found.dev(), found.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            // What is left behind is replaced by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The system's error with the address and, where there is one, the way out.
pub(crate) fn cannot_listen(address: &Address, error: &io::Error) -> io::Error {
    let way_out = match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => "; something else listens there: end it, or give another address",
        (io::ErrorKind::AddrNotAvailable, _) => "; this machine does not have that address: give one it has",
        (io::ErrorKind::PermissionDenied, Address::Tcp(_)) => "; ports below 1024 need a privilege: give a higher one",
        (io::ErrorKind::PermissionDenied, Address::Unix(_)) => "; let this user write to the folder, or give another",
        (io::ErrorKind::NotFound, Address::Unix(_)) => "; make the folder first",
        (io::ErrorKind::AlreadyExists, Address::Unix(_)) => "; remove it, or give another path",
        _ => "",
    };
    let message = format!("cannot listen on {address}: {error}{way_out}");
    io::Error::new(error.kind(), CannotListen { address: address.clone(), message })
}

/// Why there is no listener; inside the [`io::Error`], for whoever wants to say where the address is set.
#[derive(Debug)]
pub(crate) struct CannotListen {
    /// The address that was asked for.
    pub(crate) address: Address,
    message: String,
}

impl fmt::Display for CannotListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CannotListen {}

impl Bound {
    /// The next connection, and where it comes from if that has an IP address.
    pub(super) async fn accept(&self) -> io::Result<(Plain, Option<Peer>)> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Answers are small and written at once; waiting for more to send would only delay
                // them. Only speed is lost where it does not work.
                let _ = stream.set_nodelay(true);
                Ok((Plain::Tcp(stream), Some(Peer(peer.ip()))))
            }
            Listener::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Plain::Unix(stream), None))
            }
        }
    }
}

/// Raises the number of descriptors this process may have to what the system allows it.
///
/// # Errors
/// Where the system does not let it, which leaves the number as it was.
pub fn raise_descriptors() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

/// Connections a listener may hold, of which `most` are enough, and that has this share of the descriptors
/// the system allows: never so many that a flood on it leaves none to the other listeners, to the store and
/// to the way upstream.
#[must_use]
pub fn connections(most: usize, eighths: usize) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
    descriptors.map_or(most, |limit| most.min((limit / 8).saturating_mul(eighths)))
}

/// A connection as it was accepted.
#[derive(Debug)]
pub(super) enum Plain {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection whose bytes are HTTP.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(Plain),
    /// Boxed, so that plain ones do not carry its size.
    Secure(Box<TlsStream<Plain>>),
}

/// Calls the same method of whichever it is.
macro_rules! delegate {
    ($name:ident, $($variant:ident),+) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_read(context, buffer),)+
                }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_write(context, bytes),)+
                }
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_flush(context),)+
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_shutdown(context),)+
                }
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                pieces: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $(Self::$variant(stream) => Pin::new(stream).poll_write_vectored(context, pieces),)+
                }
            }

            fn is_write_vectored(&self) -> bool {
                match self {
                    $(Self::$variant(stream) => stream.is_write_vectored(),)+
                }
            }
        }
    };
}

delegate!(Plain, Tcp, Unix);
delegate!(Stream, Plain, Secure);

/// Read and written by owner and group: an app in another container of the pod connects by sharing the
/// group.
const SOCKET_MODE: u32 = 0o660;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[tokio::test]
    async fn a_socket_is_replaced_only_where_nobody_answers() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ayova.sock");
        let address = Address::Unix(path.clone());
        // Left behind: dropped without being removed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = bind(&address).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        let taken = bind(&address).await.unwrap_err();
        assert!(taken.kind() == io::ErrorKind::AddrInUse && taken.to_string().contains("ayova.sock"), "{taken}");
        UnixStream::connect(&path).await.unwrap();
        drop(first);
        assert!(!path.exists());
        fs::write(&path, "notes").unwrap();
        let other = bind(&address).await.unwrap_err();
        assert!(other.to_string().contains("no socket; remove it"), "{other}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "notes");
    }

    #[tokio::test]
    async fn what_another_has_put_there_since_stays() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("ayova.sock");
        let first = bind(&Address::Unix(path.clone())).await.unwrap();
        fs::remove_file(&path).unwrap();
        let second = bind(&Address::Unix(path.clone())).await.unwrap();
        drop(first);
        UnixStream::connect(&path).await.unwrap();
        drop(second);
    }

    #[test]
    fn only_the_configured_socket_is_taken_over() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        assert!(is_wanted(&tcp("127.0.0.1:8080"), &tcp("127.0.0.1:8080")));
        assert!(is_wanted(&tcp("127.0.0.1:8080"), &tcp("127.0.0.1:0")));
        assert!(!is_wanted(&tcp("0.0.0.0:8080"), &tcp("127.0.0.1:8080")));
        assert!(!is_wanted(&tcp("127.0.0.1:8081"), &tcp("127.0.0.1:8080")));
        assert!(!is_wanted(&tcp("127.0.0.1:8080"), &Address::Unix("/run/a".into())));
        assert!(is_wanted(&Address::Unix("/run/a".into()), &Address::Unix("/run/a".into())));
    }
}

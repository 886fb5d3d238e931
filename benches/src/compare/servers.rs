//! The servers that can be compared, and how each is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use ringwire_examples::CompressionFlag;

use crate::demand::Service;
use crate::flags::name_of;

/// What builds the servers of other projects.
const PEERS_SCRIPT: &str = "build.sh";
const EXAMPLES_COMMAND: &str = "cargo build --release -p ringwire-examples";

/// What the name of a server ends with when it speaks TLS.
const TLS_SUFFIX: &str = "-tls";

/// Each may have `-tls` behind its name, but the floors and ws.
const NAMES: &str = "ringwire-epoll, ringwire-uring, floor-epoll, floor-uring, ringwire-tokio, \
                     tokio-tungstenite, fastwebsockets, sockudo-ws, yawc, ws and bun";

/// The servers that compress.
const COMPRESSING: [&str; 7] =
    ["ringwire-epoll", "ringwire-uring", "ringwire-tokio", "sockudo-ws", "yawc", "ws", "bun"];

/// How much work each of them that can be told does to compress: what Ringwire's echo has by default.
const LEVEL: &str = "1";

/// The servers that broadcast, and each with `-tls`.
const BROADCASTING: [&str; 5] =
    ["ringwire-epoll", "ringwire-uring", "tokio-tungstenite", "sockudo-ws", "bun"];

/// Whether a server of this name speaks TLS.
pub(crate) fn is_secure(name: &str) -> bool {
    name.ends_with(TLS_SUFFIX)
}

/// How to start a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its name on the command line and in reports.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// `{listen}` stands for its address, `{port}` for the port of that, `{cpus}` for the CPUs it is to be pinned to,
    /// `{cert}` and `{key}` for the files of its certificate.
    pub(crate) args: Vec<String>,
    /// It returns raw bytes and knows no WebSocket.
    pub(crate) raw: bool,
    /// It speaks TLS.
    pub(crate) secure: bool,
    /// The path of its URL.
    pub(crate) path: String,
}

/// What fills the placeholders of a server's arguments.
#[derive(Clone, Debug)]
pub(crate) struct Placement<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) cpus: &'a [usize],
    /// Certificate and key, for servers that speak TLS.
    pub(crate) certificate: Option<&'a (PathBuf, PathBuf)>,
}

/// Where programs are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Ringwire's own programs.
    pub(crate) bin_dir: PathBuf,
    /// The folder of other projects' servers.
    pub(crate) peers_dir: PathBuf,
}

impl Places {
    /// `bin_dir` is by default the folder of this program.
    pub(crate) fn new(bin_dir: Option<PathBuf>, peers_dir: PathBuf) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let own_dir = own.parent().map(PathBuf::from).unwrap_or_default();
        Ok(Self { bin_dir: bin_dir.unwrap_or(own_dir), peers_dir })
    }
}

impl Server {
    /// Finds a server by name.
    ///
    /// # Errors
    /// When the name is unknown, or the program is not there; the text says what builds it.
    pub(crate) fn find(
        name: &str,
        service: Service,
        compression: CompressionFlag,
        places: &Places,
    ) -> anyhow::Result<Self> {
        let peer = |binary: &str| places.peers_dir.join("target/release").join(binary);
        let (base, secure) = match name.strip_suffix(TLS_SUFFIX) {
            Some(base) if !base.starts_with("floor-") && base != "ws" => (base, true),
            _ => (name, false),
        };
        let certificate = if secure { " --cert {cert} --key {key}" } else { "" };
        if service == Service::Broadcast && !BROADCASTING.contains(&base) {
            bail!("{name} does not broadcast: {} do", BROADCASTING.join(", "));
        }
        let deflate = deflate_flag(base, compression)?;
        let service = service.name();
        let (program, args, builder) = match base {
            "ringwire-epoll" | "ringwire-uring" => {
                let driver = base.trim_start_matches("ringwire-");
                // It always has a plain listener too.
                let listen = if secure {
                    "--listen 127.0.0.1:0 --tls-listen {listen}"
                } else {
                    "--listen {listen}"
                };
                let args = format!(
                    "{listen}{certificate} --io-workers 1 --driver {driver} --pin {{cpus}} \
                     --max-message 64MiB --idle-timeout off{deflate}"
                );
                let args = match compression {
                    CompressionFlag::Off => args,
                    _ => format!("{args} --compression-threshold 0 --compression-level {LEVEL}"),
                };
                (places.bin_dir.join(service), args, EXAMPLES_COMMAND.to_owned())
            }
            "floor-epoll" | "floor-uring" => {
                let driver = base.trim_start_matches("floor-");
                let program = std::env::current_exe().context("cannot find this program")?;
                let args = format!("floor --driver {driver} --listen {{listen}}");
                (program, args, String::new())
            }
            "ringwire-tokio" | "tokio-tungstenite" | "fastwebsockets" | "sockudo-ws" | "yawc" => {
                let args = format!("--listen {{listen}}{certificate}{deflate}");
                (peer(&format!("{base}-{service}")), args, script(&places.peers_dir))
            }
            "bun" => {
                let bun = places.peers_dir.join("node_modules/.bin/bun");
                let program = places.peers_dir.join("bun-server.ts");
                let program = program.display();
                let args =
                    format!("run {program} {service} --listen {{listen}}{certificate}{deflate}");
                (bun, args, script(&places.peers_dir))
            }
            "ws" => {
                let program = places.peers_dir.join("ws-echo.mjs");
                let args = format!("{} --listen {{listen}}{deflate}", program.display());
                (in_path("node")?, args, String::new())
            }
            _ => bail!(
                "no server is called {name:?}: there are {NAMES}, and, but for the floors and ws, \
                 each with {TLS_SUFFIX}"
            ),
        };
        if !program.is_file() {
            bail!("{name}: {} is not there; build it with: {builder}", program.display());
        }
        Ok(Self {
            name: name.to_owned(),
            program,
            args: args.split_whitespace().map(str::to_owned).collect(),
            raw: name.starts_with("floor-"),
            secure,
            path: "/".to_owned(),
        })
    }

    /// The arguments to listen there.
    pub(crate) fn arguments(&self, placement: &Placement<'_>) -> Vec<String> {
        let cpus: Vec<_> = placement.cpus.iter().map(usize::to_string).collect();
        let (listen, cpus) = (placement.address.to_string(), cpus.join(","));
        let file = |path: &PathBuf| path.display().to_string();
        let (cert, key) = placement.certificate.map(|(cert, key)| (file(cert), file(key))).unzip();
        let port = Some(placement.address.port().to_string());
        let values = [
            ("{listen}", Some(listen)),
            ("{port}", port),
            ("{cpus}", Some(cpus)),
            ("{cert}", cert),
            ("{key}", key),
        ];
        let fill = |arg: &String| {
            values.iter().fold(arg.clone(), |arg, (name, value)| {
                arg.replace(name, value.as_deref().unwrap_or_default())
            })
        };
        self.args.iter().map(fill).collect()
    }

    /// The URL of its echo.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        match (self.raw, self.secure) {
            (true, _) => format!("tcp://{address}"),
            (false, false) => format!("ws://{address}{}", self.path),
            (false, true) => format!("wss://{address}{}", self.path),
        }
    }
}

/// The flag that has a server compress, with a space in front.
fn deflate_flag(base: &str, compression: CompressionFlag) -> anyhow::Result<String> {
    if compression == CompressionFlag::Off {
        return Ok(String::new());
    }
    if !COMPRESSING.contains(&base) {
        bail!("{base} does not compress: {} do", COMPRESSING.join(", "));
    }
    Ok(format!(" --compression {}", name_of(&compression)))
}

/// A program in one of the folders of PATH.
fn in_path(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.with_context(|| format!("{name} is in no folder of PATH"))
}

fn script(peers_dir: &Path) -> String {
    peers_dir.join(PEERS_SCRIPT).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nowhere() -> Places {
        Places { bin_dir: "/nowhere/bin".into(), peers_dir: "/nowhere/peers".into() }
    }

    fn find(name: &str, places: &Places) -> anyhow::Result<Server> {
        Server::find(name, Service::Echo, CompressionFlag::Off, places)
    }

    #[test]
    fn missing_programs_name_what_builds_them() {
        let error = |name| find(name, &nowhere()).unwrap_err().to_string();
        for name in ["tokio-tungstenite", "fastwebsockets", "sockudo-ws", "yawc", "bun"] {
            assert!(error(name).contains("/nowhere/peers/build.sh"), "{}", error(name));
        }
        assert!(error("ringwire-epoll").contains("-p ringwire-examples"));
        assert!(error("nginx").contains("no server is called"));
    }

    #[test]
    fn floor_is_this_program() {
        let floor = find("floor-epoll", &nowhere()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let expected = ["floor", "--driver", "epoll", "--listen", "127.0.0.1:9"];
        let placement = Placement { address, cpus: &[0], certificate: None };
        assert_eq!(floor.arguments(&placement), expected);
        assert_eq!(floor.url(address), "tcp://127.0.0.1:9");
    }

    #[test]
    fn placeholders_are_filled() {
        let server = Server {
            name: "x".to_owned(),
            program: "/bin/true".into(),
            args: ["--listen", "{listen}", "--pin", "{cpus}", "-p{port}"]
                .map(str::to_owned)
                .to_vec(),
            raw: false,
            secure: false,
            path: "/ws".to_owned(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let expected = ["--listen", "127.0.0.1:9", "--pin", "0,2", "-p9"];
        let placement = Placement { address, cpus: &[0, 2], certificate: None };
        assert_eq!(server.arguments(&placement), expected);
        assert_eq!(server.url(address), "ws://127.0.0.1:9/ws");
    }

    #[test]
    fn servers_over_tls_get_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("echo"), "").unwrap();
        let places = Places { bin_dir: dir.path().into(), ..nowhere() };
        let server = find("ringwire-uring-tls", &places).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let files = ("/c.pem".into(), "/k.pem".into());
        let placement = Placement { address, cpus: &[1], certificate: Some(&files) };
        let line = server.arguments(&placement).join(" ");
        assert!(line.contains("--tls-listen 127.0.0.1:9 --cert /c.pem --key /k.pem"), "{line}");
        assert!(line.contains("--driver uring"), "{line}");
        assert_eq!(server.url(address), "wss://127.0.0.1:9/");
        assert!(!find("ringwire-uring", &places).unwrap().secure);
        let error = find("floor-epoll-tls", &places).unwrap_err().to_string();
        assert!(error.contains("but for the floors"), "{error}");
    }

    #[test]
    fn those_that_broadcast_have_programs_for_it() {
        let find = |name| {
            let off = CompressionFlag::Off;
            Server::find(name, Service::Broadcast, off, &nowhere()).unwrap_err().to_string()
        };
        let programs = [
            ("ringwire-epoll", "/nowhere/bin/broadcast"),
            ("sockudo-ws", "/nowhere/peers/target/release/sockudo-ws-broadcast"),
            ("tokio-tungstenite-tls", "/nowhere/peers/target/release/tokio-tungstenite-broadcast"),
        ];
        for (name, program) in programs {
            assert!(find(name).contains(program), "{}", find(name));
        }
        assert!(find("floor-epoll").contains("does not broadcast"));
        assert!(find("yawc").contains("does not broadcast"));
    }

    #[test]
    fn servers_that_compress_are_told_how() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("target/release");
        std::fs::create_dir_all(&release).unwrap();
        std::fs::write(dir.path().join("echo"), "").unwrap();
        std::fs::write(release.join("yawc-echo"), "").unwrap();
        let places = Places { bin_dir: dir.path().into(), peers_dir: dir.path().into() };
        let args = |name, compression| {
            Server::find(name, Service::Echo, compression, &places)
                .map(|server| server.args.join(" "))
        };
        let yawc = args("yawc", CompressionFlag::Dedicated).unwrap();
        assert_eq!(yawc, "--listen {listen} --compression dedicated");
        let own = args("ringwire-epoll", CompressionFlag::Shared).unwrap();
        let flags = "--compression shared --compression-threshold 0 --compression-level 1";
        assert!(own.ends_with(flags), "{own}");
        assert!(!args("ringwire-epoll", CompressionFlag::Off).unwrap().contains("compression"));
        let error = args("fastwebsockets", CompressionFlag::Shared).unwrap_err().to_string();
        assert!(error.contains("fastwebsockets does not compress"), "{error}");
        let error = args("ws-tls", CompressionFlag::Off).unwrap_err().to_string();
        assert!(error.contains("no server is called"), "{error}");
    }
}

//! The servers that can be compared, and how each is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// What builds the servers of other projects.
const PEERS_SCRIPT: &str = "build.sh";
const EXAMPLES_COMMAND: &str = "cargo build --release -p ringwire-examples";

/// How to start a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its name on the command line and in reports.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// `{listen}` stands for its address, `{cpus}` for the CPUs it is to be pinned to.
    pub(crate) args: Vec<String>,
    /// It returns raw bytes and knows no WebSocket.
    pub(crate) raw: bool,
}

/// Where programs are.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// Ringwire's own programs.
    pub(crate) bin_dir: PathBuf,
    /// The folder of other projects' servers.
    pub(crate) peers_dir: PathBuf,
}

impl Server {
    /// Finds a server by name.
    ///
    /// # Errors
    /// When the name is unknown, or the program is not there; the text says what builds it.
    pub(crate) fn find(name: &str, places: &Places) -> anyhow::Result<Self> {
        let peer = |binary: &str| places.peers_dir.join("target/release").join(binary);
        let (program, args, builder) = match name {
            "ringwire-epoll" | "ringwire-uring" => {
                let driver = name.trim_start_matches("ringwire-");
                let args = format!(
                    "--listen {{listen}} --io-workers 1 --driver {driver} --pin {{cpus}} \
                     --max-message 64MiB --idle-timeout 0"
                );
                (places.bin_dir.join("echo"), args, EXAMPLES_COMMAND.to_owned())
            }
            "floor-epoll" | "floor-uring" => {
                let driver = name.trim_start_matches("floor-");
                let program = std::env::current_exe().context("cannot find this program")?;
                let args = format!("floor --driver {driver} --listen {{listen}}");
                (program, args, String::new())
            }
            "tokio-tungstenite" | "fastwebsockets" | "sockudo-ws" => {
                let args = "--listen {listen}".to_owned();
                (peer(&format!("{name}-echo")), args, script(&places.peers_dir))
            }
            "bun" => {
                let bun = places.peers_dir.join("node_modules/.bin/bun");
                let program = places.peers_dir.join("bun-echo.ts");
                let args = format!("run {} --listen {{listen}}", program.display());
                (bun, args, script(&places.peers_dir))
            }
            _ => bail!(
                "no server is called {name:?}: there are ringwire-epoll, ringwire-uring, \
                 floor-epoll, floor-uring, tokio-tungstenite, fastwebsockets, sockudo-ws and bun"
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
        })
    }

    /// The arguments to listen on `address`.
    pub(crate) fn arguments(&self, address: SocketAddr, cpus: &[usize]) -> Vec<String> {
        let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
        let (listen, cpus) = (address.to_string(), cpus.join(","));
        let fill = |arg: &String| arg.replace("{listen}", &listen).replace("{cpus}", &cpus);
        self.args.iter().map(fill).collect()
    }

    /// The URL of its echo.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        if self.raw { format!("tcp://{address}") } else { format!("ws://{address}/") }
    }
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

    #[test]
    fn missing_programs_name_what_builds_them() {
        let error = |name| Server::find(name, &nowhere()).unwrap_err().to_string();
        for name in ["tokio-tungstenite", "fastwebsockets", "sockudo-ws", "bun"] {
            assert!(error(name).contains("/nowhere/peers/build.sh"), "{}", error(name));
        }
        assert!(error("ringwire-epoll").contains("-p ringwire-examples"));
        assert!(error("nginx").contains("no server is called"));
    }

    #[test]
    fn floor_is_this_program() {
        let floor = Server::find("floor-epoll", &nowhere()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let expected = ["floor", "--driver", "epoll", "--listen", "127.0.0.1:9"];
        assert_eq!(floor.arguments(address, &[0]), expected);
        assert_eq!(floor.url(address), "tcp://127.0.0.1:9");
    }

    #[test]
    fn placeholders_are_filled() {
        let server = Server {
            name: "x".to_owned(),
            program: "/bin/true".into(),
            args: ["--listen", "{listen}", "--pin", "{cpus}"].map(str::to_owned).to_vec(),
            raw: false,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let expected = ["--listen", "127.0.0.1:9", "--pin", "0,2"];
        assert_eq!(server.arguments(address, &[0, 2]), expected);
        assert_eq!(server.url(address), "ws://127.0.0.1:9/");
    }
}

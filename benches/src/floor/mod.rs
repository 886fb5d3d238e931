//! The floor: the least work an echo server can do. It returns the bytes it gets and knows no protocol.
//!
//! What a WebSocket server needs beyond this is the cost of the protocol and of the engine. Each kernel
//! interface has a floor of its own.

mod epoll;
mod uring;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;

pub(crate) use epoll::EpollFloor;
pub(crate) use uring::UringFloor;

use ringwire::program::announce;
use ringwire_examples::units::parse_bytes;

use crate::machine;
use crate::units::CpuList;

/// The kernel interface of a floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Driver {
    /// Edge-triggered epoll.
    Epoll,
    /// io_uring with multishot receives.
    Uring,
}

/// Flags of `ringwire-bench floor`.
#[derive(Debug, clap::Args)]
pub(crate) struct FloorArgs {
    /// Kernel interface.
    #[arg(long, value_enum, default_value = "epoll")]
    driver: Driver,
    /// Address to listen on; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// CPUs to run on, such as 0 or 0,2-3.
    #[arg(long)]
    cpu: Option<CpuList>,
    /// Size of epoll's one receive buffer; the default is the most that a Ringwire worker receives at once.
    #[arg(long, default_value = "256KiB", value_parser = parse_bytes)]
    receive_buffer: u64,
}

/// Serves until the process is killed. The first line printed is the address.
pub(crate) fn run(args: &FloorArgs) -> anyhow::Result<()> {
    machine::pin_load(args.cpu.as_ref())?;
    let buffer_len = usize::try_from(args.receive_buffer).context("--receive-buffer")?;
    match args.driver {
        Driver::Epoll => {
            let mut floor = EpollFloor::bind(args.listen, buffer_len)
                .with_context(|| format!("cannot listen on {}", args.listen))?;
            announce([format!("tcp://{}", floor.local_addr()?)]);
            floor.run(&AtomicBool::new(false))?;
        }
        Driver::Uring => {
            let mut floor = UringFloor::bind(args.listen)
                .with_context(|| format!("cannot serve {}", args.listen))?;
            announce([format!("tcp://{}", floor.local_addr()?)]);
            floor.run(&AtomicBool::new(false))?;
        }
    }
    Ok(())
}

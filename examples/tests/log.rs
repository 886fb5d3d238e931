//! The log and the start-up lines are side channels of a server: whatever becomes of them, it serves, and ends when
//! told to.
//!
//! Each test is a process with standard output or standard error broken in one way, on both drivers.

#![expect(clippy::disallowed_methods, reason = "tests wait for what must happen")]

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::CloseCode;
use ringwire::client::{Client, OwnedMessage};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything that must happen may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// More lines than a pipe of 4 KiB takes.
const BAD_PEERS: usize = 60;

/// An echo server at a Unix socket.
struct Echo {
    child: Child,
    dir: TempDir,
}

impl Echo {
    fn start(driver: &str, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Self {
        let dir = tempfile::tempdir().expect("there is room");
        let child = Command::new(env!("CARGO_BIN_EXE_echo"))
            .arg("--listen")
            .arg(format!("unix:{}", dir.path().join("echo").display()))
            .args(["--driver", driver, "--io-workers", "1", "--pin", "none"])
            // Every peer leaves lines at this level, without a limit on their number.
            .env("RUST_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("it starts");
        let mut echo = Self { child, dir };
        echo.until("it listens", |echo| UnixStream::connect(echo.path()).is_ok());
        echo
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("echo")
    }

    fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let ended = self.child.try_wait().expect("it is ours");
            assert_eq!(ended, None, "it ended before: {what}");
            assert!(began.elapsed() < PATIENCE, "not in time: {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn client(&self) -> Client {
        Client::builder()
            .with_read_timeout(PATIENCE)
            .connect(format!("ws+unix:{}:/", self.path().display()))
            .expect("it is served")
    }

    /// Says what no client may after the upgrade: a frame with all reserved bits (RFC 6455 §5.2).
    fn meet_bad_peer(&self) -> io::Result<()> {
        let mut stream = UnixStream::connect(self.path())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\xf1\x80\0\0\0\0",
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        // After the 101 a close frame with 1002, protocol error (§7.4.1).
        assert!(answer.ends_with(&1002_u16.to_be_bytes()), "{}", answer.escape_ascii());
        Ok(())
    }

    /// Serves while bad peers have it log, and ends on SIGTERM.
    fn check(mut self) {
        let mut stays = self.client();
        for _ in 0..BAD_PEERS {
            self.meet_bad_peer().expect("it is answered");
        }
        for client in [&mut stays, &mut self.client()] {
            client.send_text("hello").expect("it is open");
            let reply = client.receive().expect("it is open");
            assert_eq!(reply, Some(OwnedMessage::from("hello")));
        }
        terminate(&self.child);
        // Going away (§7.4.1).
        assert_eq!(stays.receive().expect("it is closed"), None);
        let code = stays.close_frame().map(|(code, _)| code);
        assert_eq!(code, Some(CloseCode::GOING_AWAY));
        assert!(self.end().success(), "it drains");
    }

    fn end(&mut self) -> ExitStatus {
        end(&mut self.child)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // It has ended already, or the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn end(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return status;
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn terminate(child: &Child) {
    let id = Pid::from_child(child);
    kill_process(id, Signal::TERM).expect("it is ours");
}

/// Takes nothing: every write fails with ENOSPC (full(4)).
fn full() -> File {
    File::options().write(true).open("/dev/full").expect("it is part of Linux")
}

/// A pipe whose reader is gone: every write fails with EPIPE.
fn closed() -> PipeWriter {
    pipe().expect("there is room").1
}

/// A pipe that takes 4 KiB (F_SETPIPE_SZ, fcntl(2)) until it is read.
fn narrow() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().expect("there is room");
    fcntl_setpipe_size(&writer, 4096).expect("it is a page");
    (reader, writer)
}

/// The same, full already.
fn clogged() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = narrow();
    writer.write_all(&[b'.'; 4096]).expect("it takes a page");
    (reader, writer)
}

fn on_both_drivers(check: impl Fn(&str)) {
    ["epoll", "uring"].into_iter().for_each(check);
}

#[test]
fn a_log_on_a_full_disk() {
    on_both_drivers(|driver| Echo::start(driver, Stdio::null(), full()).check());
}

#[test]
fn a_log_whose_reader_is_gone() {
    on_both_drivers(|driver| Echo::start(driver, Stdio::null(), closed()).check());
}

#[test]
fn a_log_that_nobody_reads() {
    on_both_drivers(|driver| {
        let (_reader, writer) = narrow();
        Echo::start(driver, Stdio::null(), writer).check();
    });
}

#[test]
fn start_up_lines_on_a_full_disk() {
    on_both_drivers(|driver| Echo::start(driver, full(), Stdio::null()).check());
}

#[test]
fn start_up_lines_whose_reader_is_gone() {
    on_both_drivers(|driver| Echo::start(driver, closed(), Stdio::null()).check());
}

#[test]
fn start_up_lines_that_nobody_reads() {
    on_both_drivers(|driver| {
        let (_reader, writer) = clogged();
        Echo::start(driver, writer, Stdio::null()).check();
    });
}

#[test]
fn neither_takes_anything() {
    on_both_drivers(|driver| Echo::start(driver, full(), full()).check());
    on_both_drivers(|driver| {
        let ((_out, out), (_log, log)) = (clogged(), clogged());
        Echo::start(driver, out, log).check();
    });
}

/// An error at the start is told nobody, and the exit code says it.
#[test]
fn an_error_that_nobody_reads() {
    let (_reader, clogged) = clogged();
    for stderr in [Stdio::from(full()), closed().into(), clogged.into()] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_echo"))
            .args(["--listen", "unix:/nonexistent/echo"])
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("it starts");
        assert_eq!(end(&mut child).code(), Some(1));
    }
}

#[test]
fn a_reader_that_comes_late_gets_every_line_and_no_colours() {
    on_both_drivers(|driver| {
        let (mut reader, writer) = narrow();
        let mut echo = Echo::start(driver, Stdio::null(), writer);
        for _ in 0..BAD_PEERS {
            echo.meet_bad_peer().expect("it is answered");
        }
        let reading = thread::spawn(move || {
            let mut log = String::new();
            reader.read_to_string(&mut log).map(|_| log)
        });
        terminate(&echo.child);
        assert!(echo.end().success());
        let log = reading.join().expect("it does not panic").expect("it is text");
        // More than the pipe holds, and the last lines among them.
        assert!(log.lines().filter(|line| line.contains("accepted")).count() >= BAD_PEERS, "{log}");
        assert!(log.contains("left_out="), "{log}");
        assert!(!log.contains('\x1b'), "no terminal reads it");
    });
}

//! What only this driver does: hold, starve, and end with requests under way.

#![expect(unsafe_code, reason = "a sandbox is made by prctl(2), and mincore(2) is asked")]

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::{Layout, Uring, UringBuffer};
use crate::base::output::Output;
use crate::driver::{Completion, Driver as _, LONG_FACTOR, Op, SendBuffer, Token};

const PIECE_LEN: u32 = 4096;
const A_WHILE: Duration = Duration::from_millis(50);

fn driver(piece_count: u16) -> Uring {
    driver_with_ring(piece_count, piece_count)
}

/// With some of its pieces in the ring.
fn driver_with_ring(piece_count: u16, ring_count: u16) -> Uring {
    let layout =
        Layout { piece_len: PIECE_LEN, piece_count, ring_count, incremental: true, turn_len: 0 };
    Uring::new(Vec::new(), layout).unwrap()
}

fn open(driver: &mut Uring, slot: u32) -> (Token, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let token = Token { slot, generation: 0 };
    driver.submit(Op::Open { token, socket: near.into() });
    (token, far)
}

/// Waits once, and takes what has come.
fn turn(driver: &mut Uring) -> Vec<(Token, Vec<u8>)> {
    driver.wait(Some(Duration::from_millis(5))).unwrap();
    let mut received = Vec::new();
    while let Some(completion) = driver.next_completion() {
        if let Completion::Received { token, buffer } = completion {
            received.push((token, buffer.to_vec()));
            driver.release(buffer);
        }
    }
    received
}

/// Writes as much as the socket takes.
fn fill(far: &mut UnixStream, next: &mut u8) -> usize {
    let mut count = 0;
    loop {
        match far.write(&[*next]) {
            Ok(_) => (*next, count) = (next.wrapping_add(1), count + 1),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_is_held_has_a_bound_and_an_order() {
    let mut driver = driver(16);
    let (token, mut far) = open(&mut driver, 0);
    driver.submit(Op::Receive { token });
    turn(&mut driver);
    driver.submit(Op::StopReceive { token });
    let chunk: Vec<u8> = (0..=255).cycle().take(8192).collect();
    let mut written = 0;
    for _ in 0..100 {
        written += far.write(&chunk[written % 256..]).unwrap_or(0);
        assert_eq!(turn(&mut driver), [], "it was told to stop");
    }
    let held = driver.held_len();
    assert_eq!(driver.held_of(0), held);
    assert!(held >= 64 << 10, "{held} of {written} bytes were taken");
    assert!(held < 80 << 10, "{held} bytes are held");
    driver.buffers.refill();
    assert_eq!(driver.buffers.home(), 16, "what is held pins no buffer");

    let mut received = Vec::new();
    driver.submit(Op::Receive { token });
    while received.len() < written {
        for (_, bytes) in turn(&mut driver) {
            received.extend(bytes);
        }
    }
    assert!(received.iter().zip((0..=255).cycle()).all(|(byte, expected)| *byte == expected));
}

/// The address of what is received next, which is released only if it is not `kept`.
fn receive_piece(
    driver: &mut Uring,
    far: &mut UnixStream,
    kept: Option<&mut Vec<UringBuffer>>,
) -> usize {
    far.write_all(&[7; PIECE_LEN as usize]).unwrap();
    let deadline = Instant::now() + super::LAST_WAIT;
    while Instant::now() < deadline {
        driver.wait(Some(A_WHILE)).unwrap();
        if let Some(Completion::Received { buffer, .. }) = driver.next_completion() {
            assert_eq!(buffer.len(), PIECE_LEN as usize);
            let address = buffer.as_ptr().addr();
            match kept {
                Some(kept) => kept.push(buffer),
                None => driver.release(buffer),
            }
            return address;
        }
    }
    panic!("nothing arrives");
}

#[test]
fn memory_that_was_used_last_is_used_first() {
    let mut driver = driver_with_ring(8, 2);
    let (token, mut far) = open(&mut driver, 0);
    driver.submit(Op::Receive { token });
    let used: HashSet<_> = (0..20).map(|_| receive_piece(&mut driver, &mut far, None)).collect();
    assert_eq!(used.len(), 2, "as many as the ring has");

    // Others take the place of those that are kept, and come back to be spare.
    let mut kept = Vec::new();
    for count in 1..=6 {
        receive_piece(&mut driver, &mut far, Some(&mut kept));
        assert_eq!(kept.len(), count);
        driver.buffers.refill();
        assert_eq!(driver.buffers.home(), 2);
    }
    kept.drain(..).for_each(|buffer| driver.release(buffer));
    let again: HashSet<_> = (0..20).map(|_| receive_piece(&mut driver, &mut far, None)).collect();
    assert!(again.len() <= 4, "two that stood in the ring, and those released last");
}

#[test]
fn spare_memory_goes_back_to_the_system() {
    let mut driver = driver_with_ring(8, 2);
    let (token, mut far) = open(&mut driver, 0);
    driver.submit(Op::Receive { token });
    let mut kept = Vec::new();
    for _ in 0..7 {
        receive_piece(&mut driver, &mut far, Some(&mut kept));
    }
    let pages: Vec<_> = kept.iter().map(|buffer| buffer.as_ptr().addr()).collect();
    kept.drain(1..).for_each(|buffer| driver.release(buffer));
    let resident = |pages: &[usize]| pages.iter().filter(|page| is_resident(**page)).count();
    assert_eq!(resident(&pages), 7);
    driver.buffers.refill();
    driver.return_free_memory();
    // One is kept, and the ring had one and got another.
    assert_eq!(resident(&pages), 2);
    assert!(kept[0].iter().all(|byte| *byte == 7), "what is kept stays as it is");
    driver.release(kept.remove(0));
    for _ in 0..20 {
        receive_piece(&mut driver, &mut far, None);
    }
}

/// Whether the page at that address is in memory (mincore(2)).
fn is_resident(page: usize) -> bool {
    let mut states = [0_u8];
    let address = std::ptr::without_provenance_mut(page);
    // SAFETY: one state is written for the one page that is asked about.
    let result = unsafe { libc::mincore(address, 4096, states.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    states[0] & 1 == 1
}

#[test]
fn who_got_nothing_goes_first() {
    let mut driver = driver(1);
    let (greedy, mut flood) = open(&mut driver, 0);
    let (modest, mut far) = open(&mut driver, 1);
    driver.submit(Op::Receive { token: greedy });
    driver.submit(Op::Receive { token: modest });
    let mut next = 0;
    for _ in 0..20 {
        assert!(fill(&mut flood, &mut next) > 0);
        far.write_all(b"x").unwrap();
        // The other may take all in one turn, and in the next as well if both had something before.
        let received: Vec<_> = (0..3).flat_map(|_| turn(&mut driver)).collect();
        assert!(received.contains(&(modest, b"x".to_vec())), "it starves");
    }
}

#[test]
fn nobody_spins_without_buffers() {
    let mut driver = driver(1);
    let (token, mut far) = open(&mut driver, 0);
    driver.submit(Op::Receive { token });
    far.write_all(&[7; 3 * PIECE_LEN as usize]).unwrap();
    let mut kept = Vec::new();
    let mut waits = 0;
    let deadline = Instant::now() + A_WHILE * 4;
    while Instant::now() < deadline {
        driver.wait(Some(A_WHILE)).unwrap();
        waits += 1;
        while let Some(completion) = driver.next_completion() {
            let Completion::Received { buffer, .. } = completion else { panic!("{completion:?}") };
            kept.push(buffer);
        }
    }
    assert!(waits < 10, "{waits} waits");
    assert_eq!(kept.len(), 1);
    driver.release(kept.pop().unwrap());
    let mut received = PIECE_LEN as usize;
    while received < 3 * PIECE_LEN as usize {
        received += turn(&mut driver).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
}

#[test]
fn a_driver_that_goes_closes_everything() {
    let mut driver = driver(4);
    let (idle, mut idle_far) = open(&mut driver, 0);
    let (stuck, mut stuck_far) = open(&mut driver, 1);
    driver.submit(Op::Receive { token: idle });
    let buffer = SendBuffer::new(Output::Own(vec![1; 64 << 20]));
    driver.submit(Op::Send { token: stuck, buffer });
    turn(&mut driver);
    // One more that the kernel never gets to see.
    driver.submit(Op::Receive { token: stuck });
    drop(driver);

    assert_eq!(idle_far.read(&mut [0; 8]).unwrap(), 0);
    stuck_far.set_nonblocking(false).unwrap();
    let sent = stuck_far.read_to_end(&mut Vec::new()).unwrap();
    assert!(sent < 64 << 20);
}

#[test]
#[should_panic = "a buffer of another driver"]
fn a_buffer_of_another_driver_is_refused() {
    let mut first = driver(2);
    let (token, mut far) = open(&mut first, 0);
    first.submit(Op::Receive { token });
    far.write_all(b"mine").unwrap();
    first.wait(Some(A_WHILE)).unwrap();
    let Some(Completion::Received { buffer, .. }) = first.next_completion() else {
        panic!("it arrives")
    };
    assert!(matches!(buffer, UringBuffer::Provided(_)));
    driver(2).release(buffer);
}

#[test]
fn more_requests_than_the_queue_has_room_for() {
    const COUNT: u32 = 2500;
    let mut driver = driver(4);
    let mut fars: Vec<_> = (0..COUNT).map(|slot| open(&mut driver, slot).1).collect();
    for slot in 0..COUNT {
        driver.submit(Op::Receive { token: Token { slot, generation: 0 } });
    }
    for far in &mut fars {
        far.write_all(b"x").unwrap();
    }
    let mut received = 0;
    while received < COUNT as usize {
        received += turn(&mut driver).len();
    }
}

/// What Linux 6.17 and newer must have; nothing on an older one.
fn layout_with_turns(turn_len: usize) -> Option<Layout> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let layout = super::probe(turn_len).unwrap();
    assert!(layout.has_turns() || version < (6, 17), "Linux {release}");
    layout.has_turns().then_some(layout)
}

#[test]
fn sockets_take_turns() {
    const TURN_LEN: usize = 64 << 10;
    let Some(layout) = layout_with_turns(8 << 10) else { return };
    let mut driver = Uring::new(Vec::new(), layout).unwrap();
    let (first, mut first_far) = open(&mut driver, 0);
    let (second, mut second_far) = open(&mut driver, 1);
    driver.submit(Op::Receive { token: first });
    driver.submit(Op::Receive { token: second });
    turn(&mut driver);
    first_far.write_all(&[1; 2 * TURN_LEN]).unwrap();
    second_far.write_all(&[2; 1000]).unwrap();
    let mut before = 0;
    'turns: loop {
        for (token, bytes) in turn(&mut driver) {
            match token == first {
                true => before += bytes.len(),
                false => break 'turns,
            }
        }
    }
    assert!(before <= TURN_LEN, "{before} bytes of one socket came before those of the other");
}

#[test]
fn a_long_message_comes_in_long_pieces() {
    const TURN_LEN: usize = 16 << 10;
    const LEN: usize = 512 << 10;
    let Some(layout) = layout_with_turns(TURN_LEN) else { return };
    for (expected, longest) in
        [(0, TURN_LEN), (TURN_LEN, TURN_LEN), (usize::MAX, LONG_FACTOR * TURN_LEN)]
    {
        let mut driver = Uring::new(Vec::new(), layout).unwrap();
        let (token, mut far) = open(&mut driver, 0);
        socket2::SockRef::from(&far).set_send_buffer_size(4 * LEN).unwrap();
        far.write_all(&[7; LEN]).unwrap();
        driver.expect(token, expected as u64);
        driver.submit(Op::Receive { token });
        let mut lens = Vec::new();
        while lens.iter().sum::<usize>() < LEN {
            for (_, bytes) in turn(&mut driver) {
                assert!(bytes.iter().all(|byte| *byte == 7));
                lens.push(bytes.len());
                driver.expect(token, expected as u64);
            }
        }
        assert_eq!(lens.iter().max(), Some(&longest), "{expected} of {lens:?}");
        driver.submit(Op::Close { token });
        assert!(driver.expecting.is_empty(), "a token that is used again expects nothing");
    }
}

/// A peer that is faster than the cancellation of a request meets the request's end.
#[test]
fn what_is_held_of_a_flood_has_a_bound() {
    const MOST: usize = 64 << 10;
    let Some(layout) = layout_with_turns(16 << 10) else { return };
    let mut driver = Uring::new(Vec::new(), layout).unwrap();
    let (token, mut far) = open(&mut driver, 0);
    socket2::SockRef::from(&far).set_send_buffer_size(1 << 20).unwrap();
    driver.submit(Op::Receive { token });
    turn(&mut driver);
    driver.submit(Op::StopReceive { token });
    let mut written = 0;
    while let Ok(len) = far.write(&[1; 16 << 10]) {
        written += len;
    }
    assert!(written > 3 * MOST, "{written} bytes are no flood");
    turn(&mut driver);
    assert_eq!(driver.held_len(), MOST, "bytes of {written} are held");
    driver.submit(Op::Receive { token });
    let mut received = 0;
    while received < written {
        received += turn(&mut driver).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert_eq!((received, driver.held_len()), (written, 0));
}

/// A sandbox may let a ring be made and forbid to enter it. The kernel has no request then, and nothing has to be
/// waited for or warned of.
#[test]
fn what_never_entered_ends_at_once() {
    let thread = std::thread::spawn(|| {
        let mut driver = driver(16);
        let (token, _far) = open(&mut driver, 0);
        forbid_io_uring_enter();
        driver.submit(Op::Receive { token });
        let error = driver.wait(Some(A_WHILE)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        assert!(driver.finish(), "the kernel has taken none of them");
    });
    thread.join().unwrap();
}

/// For this thread, for the rest of its life (seccomp(2)).
fn forbid_io_uring_enter() {
    let code = |code: u32| u16::try_from(code).unwrap();
    let number = u32::try_from(libc::SYS_io_uring_enter).unwrap();
    let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        // The number of the call is the first field of `struct seccomp_data`.
        step(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0, 0, 0),
        step(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), 0, 1, number),
        step(code(libc::BPF_RET | libc::BPF_K), 0, 0, errno),
        step(code(libc::BPF_RET | libc::BPF_K), 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let len = u16::try_from(steps.len()).unwrap();
    let program = libc::sock_fprog { len, filter: steps.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is on this stack.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    assert_eq!(results, [0, 0], "{}", std::io::Error::last_os_error());
}

/// A driver that fails on its way out frees nothing that the kernel may use.
#[test]
fn memory_of_a_registered_ring_stays_unless_it_is_retired() {
    use super::buffers::Buffers;
    let layout = super::probe(PIECE_LEN as usize).unwrap();
    let ring = super::ring::Ring::new().unwrap();
    let mut buffers = Buffers::new(layout).unwrap();
    buffers.register(ring.io_uring()).unwrap();
    let again = buffers.register(ring.io_uring()).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let start = buffers.scratch().addr();
    let is_mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(from)..number(to)).contains(&start)
        })
    };
    drop(buffers);
    assert!(is_mapped());
}

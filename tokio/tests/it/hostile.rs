//! Whatever a peer sends, and whatever becomes of the transport: no panic, no hang, an end.

use proptest::prelude::*;
use ringwire_tokio::codec::{FrameHeader, OpCode};
use ringwire_tokio::handshake::server::Accept;
use ringwire_tokio::{
    CompressionConfig, Config, Error, WebSocketStream, accept_with, client, request,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::run;

/// Bytes that look like frames for a while.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let frame = (any::<u8>(), any::<bool>(), any::<[u8; 4]>(), 0_u64..300, any::<bool>()).prop_map(
        |(first, is_masked, key, len, whole)| {
            let opcode = OpCode::from_bits(first).unwrap_or(OpCode::Binary);
            let mut header = FrameHeader::new(opcode, first & 0x80 != 0, None, len);
            header.masking_key = is_masked.then_some(key);
            header.rsv1 = first & 0x70 == 0x70;
            let mut out = Vec::new();
            header.encode(&mut out);
            out.resize(out.len() + usize::try_from(len).unwrap(), first);
            if !whole {
                out.truncate(out.len() / 2);
            }
            out
        },
    );
    let piece = prop_oneof![4 => frame, 1 => prop::collection::vec(any::<u8>(), 0..40)];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

/// Echoes to the end; gives whether it was a clean one.
async fn drain<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) -> bool {
    let mut error = None;
    loop {
        match socket.receive().await {
            Ok(Some(message)) => drop(socket.feed(message).await),
            Ok(None) => break,
            Err(found) => assert!(error.replace(found).is_none(), "an error comes once"),
        }
    }
    assert_eq!(socket.waiting_len(), 0);
    assert_eq!(socket.buffered_len(), 0);
    assert!(socket.send("late").await.is_err());
    assert_eq!(socket.close_frame().is_none(), error.is_some(), "{error:?}");
    error.is_none()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_end_a_connection(bytes in bytes(), compressed: bool, takeover: bool, is_server: bool) {
        run(async {
            let config = Config::default();
            let compression = CompressionConfig::default().with_takeover(takeover);
            let config = if compressed { config.with_compression(compression) } else { config };
            let (near, far) = tokio::io::duplex(1 << 16);
            let shaking = tokio::spawn(client(near, request("a", "/").unwrap(), config.clone()));
            let server = accept_with(far, config, |_| Ok(Accept::new())).await.unwrap();
            let (client, _) = shaking.await.unwrap().unwrap();
            let (mut peer, socket) = if is_server { (client, server) } else { (server, client) };
            let draining = tokio::spawn(drain(socket));
            let (mut reading, mut writing) = tokio::io::split(peer.transport_mut());
            let (written, all) = tokio::join!(
                async {
                    writing.write_all(&bytes).await?;
                    writing.shutdown().await
                },
                async {
                    let mut all = Vec::new();
                    reading.read_to_end(&mut all).await.map(|_| all)
                },
            );
            written.unwrap();
            all.unwrap();
            draining.await.unwrap();
        });
    }

    #[test]
    fn any_bytes_end_a_handshake(bytes in prop::collection::vec(any::<u8>(), 0..400), tail in "[ -~\r\n]{0,400}") {
        run(async {
            for start in [&b"GET / HTTP/1.1\r\n"[..], b"HTTP/1.1 101 x\r\n", b""] {
                let all = [start, tail.as_bytes(), &bytes].concat();
                let (mut near, far) = tokio::io::duplex(1 << 12);
                near.write_all(&all).await.unwrap();
                near.shutdown().await.unwrap();
                let error = accept_with(far, Config::default(), |_| Ok(Accept::new())).await;
                assert!(matches!(error, Err(Error::Handshake(_) | Error::Io(_))));
                let (mut near, far) = tokio::io::duplex(1 << 12);
                near.write_all(&all).await.unwrap();
                near.shutdown().await.unwrap();
                let error = client(far, request("a", "/").unwrap(), Config::default()).await;
                assert!(matches!(error, Err(Error::Handshake(_) | Error::Refused(_))));
            }
        });
    }
}

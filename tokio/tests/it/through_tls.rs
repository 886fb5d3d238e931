//! `wss`, and close_notify.

use std::sync::Arc;

use ringwire_tokio::tls::{ClientSettings, Roots};
use ringwire_tokio::{CloseCode, Config, Error, Message, accept, connect_with};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, UnixTime};

use crate::run;

#[test]
fn wss() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let chain = vec![certified.cert.der().clone()];
    let server = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key.into());
    let acceptor = TlsAcceptor::from(Arc::new(server.unwrap()));
    let trusting = ClientSettings::new(Roots::pem(certified.cert.pem())).build(UnixTime::now());
    let trusting = Config::default().with_tls(trusting.unwrap());
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("wss://localhost:{}/", listener.local_addr().unwrap().port());
        let serving = tokio::spawn(async move {
            let mut ends = Vec::new();
            for _ in 0..2 {
                let (stream, _) = listener.accept().await.unwrap();
                let mut socket = accept(acceptor.accept(stream).await.unwrap()).await.unwrap();
                ends.push(loop {
                    match socket.receive().await {
                        Ok(Some(message)) => socket.send(message).await.unwrap(),
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                });
            }
            assert!(ends[0].is_none(), "close_notify came behind the close frames: {ends:?}");
            assert!(matches!(ends[1], Some(Error::Ended(_))), "and here nothing: {ends:?}");
            let (stream, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(stream).await.is_err());
        });
        for closes in [true, false] {
            let (mut socket, _) = connect_with(&url, trusting.clone(), Ok).await.unwrap();
            for len in [5, 100_000] {
                let message = Message::from(vec![b'x'; len]);
                socket.send(message.clone()).await.unwrap();
                assert!(socket.receive().await.unwrap().unwrap() == message);
            }
            if closes {
                socket.close(CloseCode::NORMAL, "").await.unwrap();
            }
        }
        // Whom the system does not trust is not talked to.
        let error = connect_with(&url, Config::default(), Ok).await.unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{error}");
        serving.await.unwrap();
    });
}

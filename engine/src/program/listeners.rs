//! The listeners that a program's settings name.

use std::path::Path;

use ringwire_tls::ServerConfig;

use super::SetupError;
use super::flags::Networks;
use crate::config::settings::{Settings, SettingsError};
use crate::entry::listener::Listener;
use crate::entry::proxy::ProxyProtocol;
use crate::server::restart::activation::{self, InheritedSocket};

/// Makes the TLS settings of a program's listeners of its settings, a certificate chain and its key.
pub(super) type MakeTls = fn(&Settings, &Path, &Path) -> Result<ServerConfig, SetupError>;

/// All of them; at `address` if nobody says where.
pub(super) fn all(
    settings: &Settings,
    address: &str,
    make_tls: MakeTls,
) -> Result<Vec<Listener>, SetupError> {
    let proxy = proxy_protocol(settings)?;
    let mut inherited = activation::sockets()?;
    let mut all = Vec::new();
    let (plain, secure) = addresses(settings, address);
    for address in plain {
        all.extend(at(address, &mut inherited)?);
    }
    if !secure.is_empty() {
        let tls = certificate(settings, make_tls)?;
        for address in secure {
            let found = at(address, &mut inherited)?;
            all.extend(found.into_iter().map(|listener| listener.with_tls(tls.clone())));
        }
    }
    Ok(all.into_iter().map(|listener| listener.with_proxy_protocol(proxy.clone())).collect())
}

/// The plain ones, and those for TLS. Who asks for TLS alone gets TLS alone.
fn addresses<'s>(settings: &'s Settings, default: &'s str) -> (Vec<&'s str>, Vec<&'s str>) {
    let secure: Vec<_> = list(settings.own("tls_listen").unwrap_or_default()).collect();
    let default = if secure.is_empty() { default } else { "" };
    (list(settings.own("listen").unwrap_or(default)).collect(), secure)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn proxy_protocol(settings: &Settings) -> Result<ProxyProtocol, SettingsError> {
    Ok(match settings.own_as("proxy_protocol")? {
        Some(Networks(trusted)) if !trusted.is_empty() => ProxyProtocol::required(trusted),
        _ => ProxyProtocol::Off,
    })
}

fn certificate(settings: &Settings, make_tls: MakeTls) -> Result<ServerConfig, SetupError> {
    let path = |name| settings.own(name).map(Path::new);
    let files = path("cert").zip(path("key"));
    let (cert, key) = files.ok_or("TLS needs a certificate and its key: --cert and --key")?;
    make_tls(settings, cert, key)
}

/// TLS as it is by default.
#[cfg(feature = "tls")]
pub(super) fn plain_tls(_: &Settings, cert: &Path, key: &Path) -> Result<ServerConfig, SetupError> {
    let source = ringwire_tls::CertificateSource::files(cert, key);
    let now = ringwire_tls::pki_types::UnixTime::now();
    Ok(ringwire_tls::ServerSettings::new(source).build(now)?)
}

/// There is none to be had.
#[cfg(not(feature = "tls"))]
pub(super) fn plain_tls(_: &Settings, _: &Path, _: &Path) -> Result<ServerConfig, SetupError> {
    Err("this program was built without TLS: it takes the feature tls, or Program::with_tls".into())
}

/// The listeners that an address stands for, those of the service manager out of `inherited`.
fn at(address: &str, inherited: &mut Vec<InheritedSocket>) -> Result<Vec<Listener>, SetupError> {
    if let Some(path) = address.strip_prefix("unix:") {
        let Some((path, mode)) = path.split_once("?mode=") else {
            return Ok(vec![Listener::unix(path)]);
        };
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
        let mode = mode.ok_or_else(|| format!("{address}: a mode is octal, such as 660"))?;
        return Ok(vec![Listener::unix(path).with_mode(mode)]);
    }
    let Some(name) = address.strip_prefix("inherited") else {
        return Ok(vec![Listener::address(address)]);
    };
    let name = name.strip_prefix(':');
    let wanted = |socket: &mut InheritedSocket| name.is_none_or(|name| socket.name() == Some(name));
    let found: Vec<_> = inherited.extract_if(.., wanted).collect();
    if found.is_empty() {
        return Err(format!("the service manager made no socket for {address}").into());
    }
    Ok(found.into_iter().map(|socket| Listener::socket(socket.into_fd())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::settings::Sources;

    #[test]
    fn who_asks_for_tls_alone_gets_no_plain_listener() {
        for (plain, secure, expected) in [
            (None, None, (vec!["a:1"], vec![])),
            (Some("b:2,c:3"), None, (vec!["b:2", "c:3"], vec![])),
            (None, Some("d:4"), (vec![], vec!["d:4"])),
            (Some("b:2"), Some("d:4, e:5"), (vec!["b:2"], vec!["d:4", "e:5"])),
        ] {
            let mut sources =
                Sources::new(Config::default()).with_own("listen").with_own("tls_listen");
            for (name, value) in [("listen", plain), ("tls_listen", secure)] {
                sources = value
                    .into_iter()
                    .fold(sources, |it, value| it.with_flag("--flag", name, value));
            }
            assert_eq!(addresses(&sources.load().unwrap(), "a:1"), expected);
        }
    }

    #[test]
    fn a_unix_socket_may_have_a_mode() {
        for (address, path, mode) in [
            ("unix:/run/a", "/run/a", "None"),
            ("unix:/run/a?mode=660", "/run/a", "Some(432)"),
            ("unix:/run/a?mode=0600", "/run/a", "Some(384)"),
        ] {
            let text = format!("{:?}", at(address, &mut Vec::new()).unwrap());
            assert!(text.contains(&format!("path: {path:?}, mode: {mode}")), "{text}");
        }
        for address in ["unix:/run/a?mode=", "unix:/run/a?mode=9", "unix:/run/a?mode=1777"] {
            let error = at(address, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("a mode is octal, such as 660"), "{error}");
        }
    }
}

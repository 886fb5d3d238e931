//! The environment variables that name proxies and what needs none.

use std::net::IpAddr;

use super::{Proxy, parse};
use crate::error::{Error, ProxyProblem};

/// The proxy for a host, by the variables as other programs read them.
///
/// `https_proxy` is for `wss`, `http_proxy` for `ws`, `all_proxy` for both; capitals do as well, except for
/// `HTTP_PROXY` in a CGI program, where it is a request's header (CVE-2016-5385). This machine itself needs no proxy,
/// nor does what `no_proxy` lists.
pub(super) fn proxy_for(
    variable: impl Fn(&str) -> Option<String>,
    is_tls: bool,
    host: &str,
    port: u16,
) -> Result<Option<Proxy>, Error> {
    let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
    let in_cgi = variable("REQUEST_METHOD").is_some();
    let names: [&str; 4] = if is_tls {
        ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    };
    let found = names.into_iter().filter(|name| !(in_cgi && *name == "HTTP_PROXY"));
    let found = found.into_iter().find_map(|name| Some((name, variable(name)?)));
    let Some((name, text)) = found else { return Ok(None) };
    if is_this_machine(host) {
        return Ok(None);
    }
    let exceptions = variable("no_proxy").or_else(|| variable("NO_PROXY"));
    if exceptions.is_some_and(|list| list.split(',').any(|rule| excepts(rule, host, port))) {
        return Ok(None);
    }
    // What is malformed may have a password anywhere.
    let malformed = || Error::Proxy {
        proxy: format!("of the environment variable {name}"),
        problem: ProxyProblem::Malformed,
    };
    parse(text.trim()).map(Some).ok_or_else(malformed)
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether a rule of `no_proxy` is about the host: `*`, an address, a network such as 10.0.0.0/8, or a domain with
/// all below it; `.domain` is only what is below it. A port may follow.
fn excepts(rule: &str, host: &str, port: u16) -> bool {
    let rule = rule.trim().to_ascii_lowercase();
    if rule == "*" {
        return true;
    }
    if rule.is_empty() {
        return false;
    }
    let address: Option<IpAddr> = host.parse().ok();
    if let Some((network, len)) = rule.split_once('/') {
        let network = network.trim_matches(['[', ']']).parse().ok();
        return match (network, len.parse(), address) {
            (Some(network), Ok(len), Some(address)) => contains(network, len, address),
            _ => false,
        };
    }
    if let Some(address) = address {
        let (name, rule_port) = match rule.parse::<IpAddr>() {
            Ok(_) => (rule.as_str(), None),
            Err(_) => split_port(&rule),
        };
        let name = name.trim_matches(['[', ']']);
        return name.parse() == Ok(address) && rule_port.is_none_or(|rule_port| rule_port == port);
    }
    let (name, rule_port) = split_port(&rule);
    if rule_port.is_some_and(|rule_port| rule_port != port) {
        return false;
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    let host = host.strip_suffix('.').unwrap_or(host);
    match name.strip_prefix('.') {
        Some(domain) => is_below(host, domain),
        None => host == name || is_below(host, name),
    }
}

fn split_port(rule: &str) -> (&str, Option<u16>) {
    match rule.rsplit_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (rule, None),
        },
        None => (rule, None),
    }
}

/// On a label's boundary: `notexample.org` is not below `example.org`.
fn is_below(host: &str, domain: &str) -> bool {
    !domain.is_empty() && host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn contains(network: IpAddr, len: u32, address: IpAddr) -> bool {
    let (network, address, width) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    len <= width && (network ^ address).checked_shr(width - len).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)], is_tls: bool, host: &str) -> Option<String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(each, _)| *each == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        proxy_for(variable, is_tls, host, 443).unwrap().map(|proxy| proxy.to_string())
    }

    #[test]
    fn variables() {
        let all = [
            ("http_proxy", "http://plain:1"),
            ("HTTPS_PROXY", "http://tls:2"),
            ("ALL_PROXY", "socks5://all:3"),
        ];
        assert_eq!(find(&all, false, "a").as_deref(), Some("plain:1"));
        assert_eq!(find(&all, true, "a").as_deref(), Some("tls:2"));
        assert_eq!(find(&all[2..], true, "a").as_deref(), Some("all:3"));
        assert_eq!(find(&all, true, "localhost"), None);
        assert_eq!(find(&all, true, "127.0.0.1"), None);
        assert_eq!(find(&all, true, "::1"), None);
        assert_eq!(find(&[], true, "a"), None);
        assert_eq!(find(&[("https_proxy", " ")], true, "a"), None);
        let upper = [("HTTP_PROXY", "http://plain:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(find(&upper[..1], false, "a").as_deref(), Some("plain:1"));
        assert_eq!(find(&upper, false, "a"), None);
        let rules = [("https_proxy", "http://tls:2"), ("no_proxy", "b, .example.org ,10.0.0.0/8")];
        assert_eq!(find(&rules, true, "www.example.org"), None);
        assert_eq!(find(&rules, true, "10.1.2.3"), None);
        assert_eq!(find(&rules, true, "example.org").as_deref(), Some("tls:2"));
    }

    #[test]
    fn an_error_names_the_variable_and_no_password() {
        for (name, is_tls, text) in [
            ("all_proxy", false, "socks4://u:secret@a:1"),
            ("ALL_PROXY", true, "u:secret@a:x"),
            ("https_proxy", true, "https://u:secret@a"),
            ("HTTP_PROXY", false, "ftp://a"),
        ] {
            let variable = |each: &str| (each == name).then(|| text.to_owned());
            let error = proxy_for(variable, is_tls, "a", 443).unwrap_err().to_string();
            assert!(error.contains(&format!("variable {name}: it is not http://")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let socks = [("ALL_PROXY", "socks://all:3/")];
        assert_eq!(find(&socks, true, "a").as_deref(), Some("all:3"));
    }

    #[test]
    fn exceptions() {
        for (rule, host, expected) in [
            ("*", "a", true),
            ("", "a", false),
            ("example.org", "example.org", true),
            ("Example.ORG", "www.example.org", true),
            ("example.org", "notexample.org", false),
            ("example.org", "example.org.evil", false),
            (".example.org", "a.b.example.org", true),
            ("*.example.org", "a.example.org", true),
            ("example.org:443", "example.org", true),
            ("example.org:80", "example.org", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.10", false),
            ("192.0.2.1:80", "192.0.2.1", false),
            ("192.0.2.0/24", "192.0.2.77", true),
            ("192.0.2.0/24", "192.0.3.77", false),
            ("192.0.2.0/33", "192.0.2.0", false),
            ("0.0.0.0/0", "192.0.2.0", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
            ("2001:db8::1", "2001:db8::1", true),
            ("[2001:db8::1]:443", "2001:db8::1", true),
            (".", "a", false),
        ] {
            assert_eq!(excepts(rule, host, 443), expected, "{rule} {host}");
        }
    }
}

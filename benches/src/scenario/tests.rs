use super::*;

/// A small plan.
pub(crate) fn plan(url: &str) -> Plan {
    Plan {
        url: url.to_owned(),
        tls: crate::tls::TlsArgs::default(),
        own_certificate: None,
        epoch: 0,
        connections: 10,
        sources: Vec::new(),
        max_concurrent: 10,
        ramp_up: Duration::ZERO,
        connect_timeout: Duration::from_secs(5),
        limit: Duration::from_secs(20),
        response_timeout: Duration::from_secs(2),
        size: 100,
        text: false,
        any_reply: false,
        threads: 1,
        work: Work::Idle,
    }
}

//! The poller's keys.

/// What a key of the poller stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// Signals.
    Signals,
    /// Changes of the network.
    Monitor,
    /// The socket with this number.
    Socket(usize),
    /// The connection with this number.
    Connection(u64),
}

impl Token {
    /// The key. Sockets have even keys from 2, connections odd ones from 3.
    pub(super) fn key(self) -> u64 {
        match self {
            Token::Signals => 0,
            Token::Monitor => 1,
            Token::Socket(number) => 2 + 2 * number as u64,
            Token::Connection(id) => 3 + 2 * id,
        }
    }

    /// The meaning of a key.
    pub(super) fn of(key: u64) -> Token {
        match key {
            0 => Token::Signals,
            1 => Token::Monitor,
            _ if key.is_multiple_of(2) => Token::Socket(usize::try_from((key - 2) / 2).unwrap_or(usize::MAX)),
            _ => Token::Connection((key - 3) / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_read_back() {
        let all = [Token::Signals, Token::Monitor].into_iter();
        let sockets = (0..100).map(Token::Socket);
        let connections = (0..100).map(Token::Connection);
        let mut keys: Vec<u64> = all
            .chain(sockets)
            .chain(connections)
            .map(|token| {
                assert_eq!(Token::of(token.key()), token);
                token.key()
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 202);
    }
}

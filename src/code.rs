//! Every code the program can print. Each has a page in `src/explain/codes/`, shown by `bindscope explain`.
//!
//! `BS0xxx` profile, `BS1xxx` policy, `BS2xxx` bind, `BS3xxx` reach, `BS4xxx` evidence and environment, `BS9xxx` internal.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A code of the table below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

macro_rules! codes {
    ($($name:ident = $number:literal: $title:literal,)*) => {
        impl Code {
            $(#[doc = $title] pub const $name: Code = Code($number);)*

            /// Every code with its title, in order.
            pub const ALL: &'static [(Code, &'static str)] = &[$((Code::$name, $title),)*];
        }
    };
}

codes! {
    // Profile
    SYNTAX = 1: "the file is not valid TOML",
    UNKNOWN_KEY = 2: "unknown key",
    WRONG_TYPE = 3: "the value has the wrong type",
    NOT_A_CHOICE = 4: "the value is not one of the allowed values",
    MISSING_KEY = 5: "a key is missing",
    DUPLICATE_NAME = 6: "two entries have the same name",
    BAD_ADDRESS = 7: "not an address that can be bound",
    BAD_ZONE = 8: "the zone of an address is missing or misplaced",
    BAD_PORT = 9: "not a valid port or port range",
    BAD_DURATION = 10: "not a valid duration",
    MAPPED_ADDRESS = 11: "an IPv4-mapped address needs v6only = false",
    BAD_INTERFACE = 12: "not a valid interface name",
    TOO_MANY_SOCKETS = 13: "the profile has more sockets than its limit",
    NOTHING_ASKED = 14: "an empty list, text or expectation",
    CONTRADICTION = 15: "two keys contradict each other",
    UNREADABLE_FILE = 16: "the file cannot be read as a profile",
    UNTRUSTED_FILE = 17: "another user can change the file",
    UNKNOWN_PROFILE = 18: "there is no profile with this name",
    AMBIGUOUS_BIND = 19: "the address is ambiguous",
    UNKNOWN_SCHEMA = 20: "the schema version of the file is not supported",
    UNKNOWN_REFERENCE = 21: "a name refers to something that the file does not define",
    WRONG_KIND = 22: "the file is of the wrong kind",
    FILE_EXISTS = 23: "the file already exists",
    BAD_NETWORK = 24: "the network of the lab is not consistent",
    NO_REASON = 25: "an exposed listener gives no reason",
    CONFIG_FOUND = 26: "the profile bindscope.toml of this directory is used",
    LOOPBACK_ASSUMED = 27: "a port without an address is opened on loopback",
    UDP_REPLIES = 28: "a UDP listener answers datagrams of other hosts",
    IMPORT_SKIPPED = 29: "a part of a configuration is not predicted",
    IMPORT_FAILED = 30: "the configuration of another program cannot be read",
    BASELINE = 80: "the baseline cannot be used",
    COMMAND_LINE = 81: "options that cannot be combined",
    UNKNOWN_NAME = 90: "unknown code, topic or command",
    BAD_SNAPSHOT = 91: "the file is not a snapshot of a host",
    BAD_SETTING = 92: "no prediction depends on the setting",
    BAD_REPORT = 93: "the file is not a report that can be compared",
    TOO_MANY_RESULTS = 95: "there are more results than the limit",
    BAD_FACTOR = 96: "the factor of the experiment cannot be used",
    TOO_MANY_RUNS = 97: "the experiment has more combinations than its limit",
    // Policy and audit
    NOT_ALLOWED = 1001: "the policy does not allow the listener",
    TOO_WIDE = 1002: "the listener is more exposed than the policy allows",
    WRONG_FAMILIES = 1003: "the listener does not serve the address families of the policy",
    REQUIRED_ABSENT = 1004: "a listener that the policy requires is missing",
    WRONG_PROCESS = 1005: "the listener belongs to a process that the policy does not allow",
    POLICY_UNDECIDED = 1006: "not enough evidence to judge the listener",
    WAIVER_UNUSED = 1007: "a waiver of the policy matches no finding",
    WAIVER_EXPIRED = 1008: "a waiver of the policy has expired",
    ALLOW_UNUSED = 1009: "an allow rule of the policy matches no socket",
    NOTHING_JUDGED = 1010: "the policy judged no socket",
    NOT_IN_BASELINE = 1011: "the listener is not in the baseline",
    REQUIRED_UNREACHABLE = 1012: "no client can reach a listener that the policy requires",
    WILDCARD_LISTENER = 1020: "the listener is bound to all addresses of the host",
    ONE_FAMILY = 1021: "the listener serves only one of two address families",
    STALE_ADDRESS = 1022: "the listener's address is no longer on the host",
    ADDRESS_NOT_INTERFACE = 1023: "a bound address does not limit the interface",
    OTHERS_MAY_JOIN = 1024: "other programs can bind the same address and port",
    LOOPBACK_FROM_OUTSIDE = 1025: "a loopback listener is reachable from outside",
    ANY_IP = 1026: "local routes give the host addresses that no interface has",
    QUEUE_FULL = 1027: "the accept queue is full",
    SHADOWED = 1028: "two programs share a port",
    DEVICE_GONE = 1029: "the listener's device no longer exists",
    EXE_REPLACED = 1030: "the executable was replaced after the program started",
    WIDER_IN_IPV6 = 1031: "the listener is more exposed over IPv6 than over IPv4",
    SENT_TO_MANY = 1032: "the socket is bound to a multicast or broadcast address",
    REHEARSAL_DIFFERS = 1040: "the observed reach differs from the exposure",
    PUBLISHED = 1041: "a port is published without a socket",
    PASSES_INPUT = 1042: "a published port does not pass the rules for this host's sockets",
    FILTER_NARROWS = 1043: "packet filters narrow who reaches the listener",
    FILTERED_DIFFERENTLY = 1044: "packet filters treat IPv4 and IPv6 differently",
    ANSWERS_LOST = 1046: "some clients get no answer because of a route or a policy rule",
    TRANSPARENT = 1050: "the listener is transparent",
    WILDCARD_WITHOUT_LINKS = 1051: "a wildcard on a host without any link that is up",
    ADDRESS_EXPIRES = 1052: "the address of the listener expires",
    // Bind
    ADDRESS_IN_USE = 2001: "another socket already uses the address and port",
    ADDRESS_NOT_HERE = 2002: "the address is not on this host",
    ADDRESS_TENTATIVE = 2003: "duplicate address detection has not finished",
    ADDRESS_DUPLICATE = 2004: "another host on the link has the same address",
    PRIVILEGED_PORT = 2005: "the port is privileged",
    ZONE_NEEDED = 2006: "the link-local address has no zone or the wrong one",
    NO_SUCH_DEVICE = 2007: "the device does not exist",
    ADDRESS_NOT_ON_DEVICE = 2008: "the address is not on the device",
    NOT_PERMITTED = 2009: "the option needs a privilege that the process does not have",
    FAMILY_UNAVAILABLE = 2010: "the address family is not available",
    INVALID_BIND = 2011: "the kernel does not accept this combination",
    OPTION_UNAVAILABLE = 2012: "the system does not have this option",
    OUT_OF_FILES = 2013: "no file descriptor is left for another socket",
    BIND_FAILED = 2014: "the socket could not be opened",
    NOTHING_BOUND = 2015: "no socket could be bound",
    LEFT_OUT = 2020: "part of a listener is missing on this host and was skipped",
    WIDE_OPEN = 2021: "other hosts can reach the listener",
    BACKLOG_CAPPED = 2022: "the accept queue is shorter than requested",
    NO_PACKET_INFO = 2023: "the kernel does not report the ingress interface",
    NOT_INHERITED = 2026: "the sockets to inherit are missing",
    NEVER_REACHED = 2024: "no connection can ever arrive at the address",
    ADDRESS_GONE = 2025: "the address of a listener was removed",
    // Reach
    EXACT_ADDRESS = 3001: "a socket is bound to exactly this address",
    WILDCARD = 3002: "a wildcard accepts every address of its family",
    WEAK_HOST = 3003: "an address is answered on every interface",
    DUAL_STACK = 3004: "an IPv6 wildcard accepts IPv4 as well",
    DEVICE_BOUND = 3005: "a socket accepts what arrives on its device",
    SPECIFIC_WINS = 3006: "a specific address wins over a wildcard",
    IPV4_SOCKET_WINS = 3007: "an IPv4 socket wins over a dual-stack socket",
    DEVICE_WINS = 3008: "a socket bound to the device wins over one that is not",
    ORDER_DECIDES = 3009: "the order of binds decides which socket receives the packet",
    GROUP_SHARES = 3010: "several sockets share the connections",
    NO_LISTENER = 3011: "no socket listens there",
    OTHER_DEVICE = 3012: "the socket is bound to another device",
    OTHER_FAMILY = 3013: "the socket does not accept this family",
    LOOPBACK_FROM_WIRE = 3014: "the kernel drops loopback addresses that arrive from a link",
    ROUTE_LOCALNET = 3015: "packets to loopback addresses are accepted from the link",
    LINK_LOCAL_ELSEWHERE = 3016: "a link-local address is answered on its own link only",
    NO_WAY_BACK = 3017: "the host has no return route over the interface",
    LOCAL_ROUTE = 3018: "a local route makes the address this host's own",
    IPV6_OFF = 3019: "IPv6 is disabled on the interface",
    OTHER_VRF = 3020: "the address belongs to another VRF",
    LOOPBACK_DOWN = 3021: "the loopback interface is down",
    DESTINATION_NOT_HERE = 3022: "the destination is not on this host",
    REACH_UNKNOWN = 3023: "the result depends on facts that are not known",
    FOREIGN_SOCKET = 3024: "a socket of another program receives it",
    NO_ROUTE = 3030: "the sender has no route to the address",
    MEANS_ITSELF = 3031: "the address refers to the client itself",
    NOT_FORWARDED = 3032: "a host on the path drops the packet",
    ANSWER_DIVERTED = 3040: "a policy rule sends the answer another way",
    ANSWER_ELSEWHERE = 3041: "the answer leaves by another interface",
    RP_FILTER = 3042: "rp_filter drops the packet",
    NOT_RESOLVED = 3043: "neighbours cannot resolve the address",
    ANSWER_UNKNOWN = 3044: "the route of the answer depends on facts that are not known",
    FILTER_DROPS = 3050: "a packet filter drops the packet",
    FILTER_REJECTS = 3051: "a packet filter rejects the packet",
    FILTER_DROPS_ANSWER = 3052: "a packet filter drops the answer",
    FILTER_HALF_OPEN = 3053: "a packet filter drops the last packet of the handshake",
    FORWARDED = 3054: "address translation forwards it to another host",
    REDIRECTED = 3055: "address translation changes the destination on this host",
    FILTER_DROPS_NEIGHBOURS = 3056: "a packet filter drops neighbour discovery",
    FILTER_UNKNOWN = 3057: "the result depends on what a packet filter does",
    FILTER_ASSUMED = 3058: "a packet filter lets it pass under an assumption",
    // Diagnoses of `why`
    WHY_UNRESOLVED = 3060: "the name has no address",
    WHY_LOCALHOST = 3061: "localhost resolves to an address that is not loopback",
    WHY_OTHER_HOST = 3062: "the address belongs to another host",
    WHY_ONE_FAMILY = 3063: "the listener serves one address family, and the name has both",
    WHY_LOOPBACK_ONLY = 3064: "the listener is bound to loopback, and the client uses another address",
    WHY_OTHER_ADDRESS = 3065: "the listener is bound to another address of the host",
    WHY_V6ONLY = 3066: "the listener is an IPv6 wildcard that does not accept IPv4",
    WHY_NOT_LISTENING = 3068: "a socket is bound to the port and does not listen",
    WHY_NAMESPACE = 3069: "the port is served in another network namespace",
    WHY_OTHER_PROTOCOL = 3070: "the port is served over the other protocol only",
    WHY_TRANSLATED = 3072: "the port answers, and no socket of the host listens on it",
    WHY_BLOCKED = 3073: "a socket listens, and connections do not reach it",
    WHY_TIME_WAIT = 3075: "only connections in TIME-WAIT are left on the port",
    WHY_NO_IPV6 = 3076: "IPv6 cannot be used for the address",
    WHY_UNEXPECTED = 3078: "another program than the expected one answers",
    // Evidence and environment
    LABEL_MASKS_INTERFACE = 4001: "an address label names another interface",
    HOST_INCOMPLETE = 4002: "part of the host's network could not be read",
    HOST_UNREADABLE = 4003: "the host's network could not be read",
    SOURCES_DISAGREE = 4004: "two sources disagree about an address",
    OUTPUT_FAILED = 4005: "output could not be written",
    NAMES_ALIKE = 4008: "the names of two interfaces look alike",
    LAB_REFUSED = 4020: "network namespaces are not permitted",
    LAB_FAILED = 4021: "the lab could not be built",
    LAB_GAP = 4022: "part of the lab was left out",
    FILTERS_UNREADABLE = 4024: "the rules of packet filters could not be read",
    V6ONLY_UNKNOWN = 4042: "it is unknown whether the listener accepts IPv4 as well",
    ARRIVAL_TROUBLE = 4006: "connections could not be accepted or attributed",
    RIGHTS_KEPT = 4007: "privileges that are no longer needed could not be dropped",
    CANNOT_SEE = 4070: "this user cannot see part of the machine",
    KERNEL_DIFFERS = 4071: "bind behaviour of this kernel differs from the prediction",
    // Internal
    INTERNAL = 9001: "an internal error",
}

impl Code {
    /// Short title of the code.
    #[must_use]
    pub fn title(self) -> &'static str {
        Code::ALL.iter().find(|(code, _)| *code == self).map_or("", |(_, title)| title)
    }

    /// Its text, such as `BS2001`.
    #[must_use]
    pub fn text(self) -> [u8; 6] {
        let digit = |divisor: u16| b'0' + (self.0 / divisor % 10) as u8;
        [b'B', b'S', digit(1000), digit(100), digit(10), digit(1)]
    }

    /// The code with this text, such as `BS2001`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Code> {
        let digits = text.strip_prefix("BS").or_else(|| text.strip_prefix("bs"))?;
        let number: u16 = digits.parse().ok().filter(|_| digits.len() == 4)?;
        Code::ALL.iter().map(|(code, _)| *code).find(|code| code.0 == number)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(std::str::from_utf8(&self.text()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let text = String::deserialize(deserializer)?;
        Code::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format_args!("{text:?} is not a code of this version")))
    }
}

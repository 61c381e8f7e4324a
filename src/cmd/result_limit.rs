//! The limit on the number of results that `plan`, `diff`, `probe` and `lab run` keep in memory.

use super::Failure;
use crate::code::Code;
use crate::diag::Diagnostic;

/// The limit, as an argument.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ResultLimit {
    /// Refuse to make more results (sources x destinations x ports), each of which takes some 600 bytes of memory
    #[arg(long, value_name = "N", default_value_t = DEFAULT, hide_short_help = true)]
    max_results: usize,
}

/// The limit unless `--max-results` gives another one. These results take less than 1 GiB of memory.
const DEFAULT: usize = 1_000_000;

impl ResultLimit {
    /// Checks that `count` results are allowed. To be called before anything is bound or built.
    ///
    /// # Errors
    /// Exit code 2 with the count.
    pub fn check(self, count: usize) -> Result<(), Failure> {
        let most = self.max_results;
        if count <= most {
            return Ok(());
        }
        let message = format!("there are {count} results, and the limit is {most}: --max-results {most}");
        let help = format!(
            "every interface or node is a source, and every address a destination; name fewer ports or destinations, or allow it with `--max-results {count}` and about {} MiB of memory",
            count.saturating_mul(600) >> 20
        );
        Err(Failure::usage(vec![Diagnostic::error(Code::TOO_MANY_RESULTS, message).help(help)]))
    }

    /// Checks that `count` results of several runs together are at most `factor` times the limit of one.
    ///
    /// # Errors
    /// Exit code 2 with the count.
    pub fn check_total(self, count: usize, factor: usize) -> Result<(), Failure> {
        let most = self.max_results.saturating_mul(factor);
        if count <= most {
            return Ok(());
        }
        let message = format!("all combinations together have {count} results, and the limit is {most}");
        let needed = count.div_ceil(factor);
        let help = format!("remove values of factors, or allow it with `--max-results {needed}`");
        Err(Failure::usage(vec![Diagnostic::error(Code::TOO_MANY_RUNS, message).help(help)]))
    }
}

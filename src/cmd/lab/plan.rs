//! `bindscope lab plan` and `bindscope lab list`.

use crate::cmd::format_args::{FormatArgs, Formats};
use crate::model::{Document, Schema};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Chosen, NetworkArgs};
use crate::cmd::{Context, Exit, Failure};
use crate::escape::{escape, shell};
use crate::lab::{builtin, ops};

/// Arguments of `bindscope lab plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: NetworkArgs,
    /// Nothing is built here
    #[arg(long, hide = true)]
    dry_run: bool,
    #[command(flatten)]
    format: FormatArgs<Format>,
    /// Write it to FILE instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Formats of a lab's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A shell script for root
    Human,
    /// The document of schema bindscope.lab-plan/1
    Json,
}

impl Formats for Format {
    const DEFAULT: Format = Format::Human;
    const JSON: Format = Format::Json;
}

/// The body of the document.
#[derive(Debug, Serialize)]
struct Operations<'a> {
    topology: &'a str,
    description: &'a str,
    nodes: &'a [String],
    host: Option<&'a String>,
    operations: Vec<Step<'a>>,
    events: Vec<Vec<Step<'a>>>,
}

#[derive(Debug, Serialize)]
struct Step<'a> {
    node: &'a str,
    commands: Vec<String>,
}

fn steps<'a>(plan: &'a ops::Plan, operations: &[ops::Operation]) -> Vec<Step<'a>> {
    let node = |operation: &ops::Operation| plan.nodes.get(operation.node).map_or("", String::as_str);
    operations
        .iter()
        .map(|operation| Step { node: node(operation), commands: plan.commands(operation) })
        .collect()
}

/// Entry point of `bindscope lab plan`.
///
/// # Errors
/// An invalid profile or network.
pub fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    show(&args.network.choose(context)?, args.format.get(), args.output.as_deref(), context)
}

/// Writes the operations that would build a network.
pub(super) fn show(
    chosen: &Chosen,
    format: Format,
    output: Option<&Path>,
    context: &Context,
) -> Result<Exit, Failure> {
    let plan = &chosen.plan;
    let text = match format {
        Format::Human => script(&chosen.name, &chosen.description, plan),
        Format::Json => {
            let body = Operations {
                topology: &chosen.name,
                description: &chosen.description,
                nodes: &plan.nodes,
                host: plan.nodes.get(plan.host),
                operations: steps(plan, &plan.operations),
                events: plan.events.iter().map(|event| steps(plan, event)).collect(),
            };
            serde_json::to_string_pretty(&Document::new(Schema::LabPlan, body)).unwrap_or_default() + "\n"
        }
    };
    context.emit(text.as_bytes(), output)?;
    Ok(Exit::Success)
}

/// The operations as a script.
fn script(name: &str, description: &str, plan: &ops::Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# The network {}: {}.", escape(name), escape(description));
    let host = plan.nodes.get(plan.host).map_or_else(String::new, |host| escape(host));
    let _ =
        writeln!(out, "# Listeners are bound in the node {host}. As root, these commands build the same:");
    for command in plan.operations.iter().flat_map(|operation| plan.commands(operation)) {
        let _ = writeln!(out, "{command}");
    }
    for (number, event) in plan.events.iter().enumerate() {
        let _ = writeln!(out, "# Event {}:", number + 1);
        for command in event.iter().flat_map(|operation| plan.commands(operation)) {
            let _ = writeln!(out, "{command}");
        }
    }
    let names: Vec<String> = plan.nodes.iter().map(|name| shell(name)).collect();
    let _ = writeln!(out, "# Remove it:");
    for name in names {
        let _ = writeln!(out, "# ip netns del {name}");
    }
    out
}

/// Arguments of `bindscope lab list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {}

/// Entry point of `bindscope lab list`.
///
/// # Errors
/// If it cannot be written.
pub fn list(_args: &ListArgs, context: &Context) -> Result<Exit, Failure> {
    let mut out = String::new();
    for (name, _) in builtin::ALL {
        let Some(topology) = builtin::topology(name) else { continue };
        let nodes: Vec<String> = topology.all_nodes().into_iter().map(|node| node.name).collect();
        let about = topology.description.unwrap_or_default();
        let _ = writeln!(out, "{name:<16} {about} ({})", nodes.join(", "));
    }
    context.show(&out, None)?;
    Ok(Exit::Success)
}

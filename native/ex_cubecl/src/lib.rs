//! The NIF library of ExCubecl: Erlang terms in, one call of core, Erlang terms out. Only this
//! crate depends on rustler.

mod atoms;
mod call;
mod error;
mod list;
mod list_cell;
mod nif;
mod notifier;
mod number;
mod pid;
mod read;
mod resource;
mod saved_binary;
mod term;
mod transfer;

use rustler::{Env, Term};

/// Core finds and opens devices through the runtimes of this build.
fn load(_: Env<'_>, _: Term<'_>) -> bool {
    ex_cubecl_runtime::install();
    true
}

rustler::init!("Elixir.ExCubecl.Native", load = load);

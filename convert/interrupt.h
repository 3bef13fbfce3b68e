#pragma once

namespace llmq::convert {

/// From now on SIGINT and SIGTERM set a flag instead of ending the process; a second one ends it at
/// once. SIGPIPE and SIGXFSZ become errors of the write that caused them.
void install_signal_handlers();

/// Throws Error{kInterrupted} when a signal has come. Thread-safe; call it between pieces of work.
void throw_if_interrupted();

}  // namespace llmq::convert

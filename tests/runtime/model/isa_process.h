#pragma once

#include <map>
#include <string>

#include "quant/kernels/isa.h"

namespace llmq::testing {

/// The instruction set is chosen once per process, so a test of every set runs each in a process of
/// its own: this binary again, with one test that finds itself to be such a process and hands its
/// result over. In that process this is the file for it; null elsewhere.
const char* isa_child_output();

/// For the child: hands `result` over, with the name of the instruction set that is active.
void write_isa_result(const std::string& result);

/// Runs the test `test` ("Suite.name") of this binary in a process forced to `isa`, with the
/// environment variables `environment` set, and gives the result that it wrote. Expects that it
/// passes and that the set was really active.
std::string isa_child_result(quant::Isa isa, const std::string& test,
                             const std::map<std::string, std::string>& environment = {});

/// isa_child_result of every instruction set of this machine: expects the same bytes, not empty.
void expect_same_result_on_every_isa(const std::string& test,
                                     const std::map<std::string, std::string>& environment = {});

}  // namespace llmq::testing

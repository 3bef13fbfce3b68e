#include "convert/program.h"

int main(int argc, char** argv) {
  return llmq::convert::run_program(argc, argv);
}

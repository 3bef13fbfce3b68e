#pragma once

// The compiler's own header of vector instructions, for files compiled for AVX-512. GCC 12 takes
// the deliberately undefined operands inside it for mistakes of whoever calls it.

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

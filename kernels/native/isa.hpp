// The instruction sets that this build has kernels for, and which of them the machine runs.
#pragma once

#include <string>
#include <vector>

#ifdef FASTNT_X86
#include <cpuid.h>
#endif

namespace fastnt {

enum class Isa : int { baseline, avx2, avx512 };

#ifdef FASTNT_X86
// Conversions of float16. Not all compilers that build this know the name for __builtin_cpu_supports.
inline bool has_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

// Best first. FASTNT_X86 is set where the x86 variants are built.
inline std::vector<Isa> usable_isas() {
    std::vector<Isa> usable;
#ifdef FASTNT_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      has_f16c();
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        usable.push_back(Isa::avx512);
    if (avx2) usable.push_back(Isa::avx2);
#endif
    usable.push_back(Isa::baseline);
    return usable;
}

inline const char *name(Isa isa) {
    return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline";
}

}  // namespace fastnt

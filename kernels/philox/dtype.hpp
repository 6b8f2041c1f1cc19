// The element types of logits and images, as the Python launchers number them.
#pragma once

namespace fastnt {

enum class Dtype : int { float32, bfloat16, float16, float64 };

}  // namespace fastnt

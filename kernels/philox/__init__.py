"""The noise stream: Philox4x32-10, uniforms and normals as pure functions of (seed, step, row, class)."""

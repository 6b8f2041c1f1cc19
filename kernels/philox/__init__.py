"""The noise stream: Philox4x32-10, its uniforms and normals as pure functions of its counters."""

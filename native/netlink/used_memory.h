#pragma once

#include <cstddef>
#include <vector>

namespace xfrmesh {

// Memory for messages that was written in before, for whichever thread encodes next: to touch new memory is dear
// (lib/kernel/record-buffers.ts, which keeps records so and says when this is dropped too). It is not wiped: it is for
// messages without keys.

// An empty vector, with what capacity there is.
std::vector<std::byte> takeUsedMemory();

// Takes back what was got so. The larger of what is kept and this is kept, up to 32 MiB.
void giveBackUsedMemory(std::vector<std::byte> bytes);

}  // namespace xfrmesh

#include "netlink/used_memory.h"

#include <mutex>
#include <utility>

namespace xfrmesh {
namespace {

constexpr std::size_t kMost = 32U << 20;

std::mutex mutex;
std::vector<std::byte> kept;

}  // namespace

std::vector<std::byte> takeUsedMemory() {
  const std::scoped_lock lock(mutex);
  std::vector<std::byte> bytes = std::exchange(kept, {});
  bytes.clear();
  return bytes;
}

void giveBackUsedMemory(std::vector<std::byte> bytes) {
  if (bytes.capacity() > kMost) return;
  const std::scoped_lock lock(mutex);
  if (bytes.capacity() > kept.capacity()) kept.swap(bytes);
}

}  // namespace xfrmesh

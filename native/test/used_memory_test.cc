#include "netlink/used_memory.h"

#include "test/check.h"

namespace xfrmesh::test {
namespace {

constexpr std::size_t kSmall = 4096;
constexpr std::size_t kLarge = 1U << 20;
constexpr std::size_t kTooLarge = (32U << 20) + 1;

std::vector<std::byte> written(std::size_t size) { return std::vector<std::byte>(size, std::byte{1}); }

}  // namespace

TEST(memory_that_was_used_is_used_again_once_and_the_largest_is_kept) {
  takeUsedMemory();
  std::vector<std::byte> large = written(kLarge);
  const std::byte* const where = large.data();
  giveBackUsedMemory(std::move(large));
  giveBackUsedMemory(written(kSmall));
  std::vector<std::byte> again = takeUsedMemory();
  CHECK(again.empty());
  CHECK(again.capacity() == kLarge);
  CHECK(again.data() == where);
  CHECK(takeUsedMemory().capacity() == 0);
  giveBackUsedMemory(written(kTooLarge));
  CHECK(takeUsedMemory().capacity() == 0);
}

}  // namespace xfrmesh::test

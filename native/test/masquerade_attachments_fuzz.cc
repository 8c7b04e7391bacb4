// Whatever the texts, takeAttachments refuses them or makes columns that agree.
#include <cstdlib>
#include <vector>

#include "masquerade/attachments.h"

namespace {

using namespace xfrmesh;

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

// How many attachments there are, and how many addresses each has, then the texts.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t count = data[0] % 16U;
  if (size < 1 + count) return 0;
  const std::vector<std::uint32_t> counts(data + 1, data + 1 + count);
  const bool namesChecked = data[0] >= 128;
  Attachments all;
  if (!takeAttachments({.texts = std::as_bytes(std::span(data, size)).subspan(1 + count),
                        .counts = counts,
                        .namesChecked = namesChecked},
                       all))
    return 0;
  require(all.owners.size() == count && all.comments.size() == count && all.ends.size() == count);
  std::uint32_t end = 0;
  for (std::size_t i = 0; i < count; i++) {
    end += counts[i];
    require(all.ends[i] == end);
    const auto& [type, length, text] = all.comments[i];
    require(type == 0 && length > 50 && length <= kLongestComment + 1 && text[length - 1] == '\0');
  }
  require(all.mappings.size() == end);
  for (const auto& [address, subnet] : all.mappings) {
    require(subnet == subnetOf(address, subnet.family, subnet.prefix));
    require(subnet.prefix <= subnet.addressBytes() * 8);
  }
  return 0;
}

#include "xfrm/identity.h"

#include <linux/xfrm.h>

#include <algorithm>

#include "netlink/hash.h"

namespace xfrmesh {
namespace {

// Mixes in those attributes that the kernel tells objects of that kind by.
std::uint64_t mixTail(std::uint64_t hash, Bytes tail, bool withInterface) {
  Attribute attribute{};
  while (takeAttribute(tail, attribute)) {
    if (attribute.type != XFRMA_MARK && !(withInterface && attribute.type == XFRMA_IF_ID)) continue;
    // Zeros are as good as absent.
    std::uint64_t word = 0;
    std::memcpy(&word, attribute.payload.data(), std::min(attribute.payload.size(), sizeof word));
    if (word != 0) hash = mixed(hash ^ attribute.type, word);
  }
  return hash;
}

std::uint64_t identityOfState(const StateRecord& state, Bytes tail) {
  StateRecord id{};
  id.family = state.family;
  id.protocol = state.protocol;
  std::memcpy(id.destination, state.destination, sizeof id.destination);
  id.spi = state.spi;
  return mixTail(hashOf(id), tail, false);
}

std::uint64_t identityOfPolicy(const PolicyRecord& policy, Bytes tail) {
  PolicyRecord id = policy;
  id.length = id.priority = 0;
  id.action = id.flags = id.share = 0;
  id.operation = Operation::kAddPolicy;
  if (policy.operation != Operation::kDeletePolicy) id.index = 0;
  return mixTail(hashOf(id), tail, true);
}

}  // namespace

std::uint64_t identityOf(const RecordView& record) {
  return isPolicy(record.operation()) ? identityOfPolicy(record.policy(), record.tail)
                                      : identityOfState(record.state(), record.tail);
}

}  // namespace xfrmesh

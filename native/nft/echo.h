// What the kernel echoes of a transaction: the objects as it made them.
#pragma once

#include <cstdint>

#include "netlink/message.h"

namespace xfrmesh {

// The handle of the table, chain, rule, set or object that a message describes; 0 if it has none.
std::uint64_t handleOf(const Message& message);

}  // namespace xfrmesh

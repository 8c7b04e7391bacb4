// What the kernel echoes of a transaction: the objects as it made them.
#pragma once

#include <cstdint>
#include <vector>

#include "netlink/message.h"
#include "nft/transaction.h"

namespace xfrmesh {

// The handle of the table, chain, rule, set or object that a message describes; 0 if it has none.
std::uint64_t handleOf(const Message& message);

// Fills in the handles, by record, of rules that were not echoed. A table counts its handles up as it makes things, and
// makes them in the order of the messages: where the last rule of a run is as far from the first as there are rules,
// each has the number after the one before. False if that is not so; then nothing is known of the run.
bool fillHandles(std::vector<double>& handles, const std::vector<RuleRun>& runs);

}  // namespace xfrmesh

// Changes to what the masquerade table holds, worked out before they are made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "masquerade/attachments.h"
#include "masquerade/holdings.h"
#include "masquerade/ledger.h"

namespace xfrmesh {

// Mappings on one subnet that follow one another.
struct MappingGroup {
  Subnet subnet;
  std::uint32_t count;
};

// What is to be done, all at once. Mappings that are made stand in columns: the elements subnet by subnet, then the
// rules in their order.
struct Plan {
  std::vector<double> deleteRules;  // handles
  // Of elements: their addresses as packets have them, without gaps.
  std::vector<std::byte> delete4;
  std::vector<std::byte> delete6;
  std::vector<MappingGroup> elements;
  std::vector<MappingGroup> rules;
  std::vector<std::byte> keys;
  std::vector<const CommentSlot*> comments;  // of what the draft was given
  // Whose last element goes.
  std::vector<Subnet> oldSubnets;
  // How many of the elements that there are stay.
  std::uint32_t left4 = 0;
  std::uint32_t left6 = 0;
};

// Changes to what a ledger tells of, one after the other. An address has one element, and so one owner there. If it is
// mapped for another, the newest has the element, and the one before gets a rule: that is in force beside it, as it
// would be beside the newest's rule, and goes with its owner. So who comes last never undoes what others still hold.
//
// What it is given is kept, and must stay as it is, until apply().
class Draft {
 public:
  // `kind` holds the mappings that are made.
  Draft(const Ledger& ledger, Kind kind) : ledger_(ledger), kind_(kind), isGone_(ledger.rows().end()) {}

  // Makes room for so many mappings.
  void reserve(std::size_t count) { made_.reserve(count); }
  // Takes all that is the owner's away.
  void remove(const Key& owner);
  // Makes the mappings of these attachments theirs, and takes all else that is theirs away.
  void add(const Attachments& attachments);
  // Takes all away that is of owners who begin with these eight bytes, but for those of these attachments.
  void collect(Bytes network, std::span<const Attachments> valid);

  [[nodiscard]] Plan plan() const;

  // Has the ledger tell of what the plan made of the table. Handles of the rules that were made are in their order.
  void apply(Ledger& ledger, std::span<const double> handles) const;

 private:
  void markGone(std::uint32_t row);
  // Has no element hold an address: who had it gets a rule.
  void clear(const Key& address);

  const Ledger& ledger_;
  Kind kind_;
  std::vector<std::uint8_t> isGone_;  // by row of the ledger
  std::vector<std::uint32_t> gone_;
  Holdings made_;
};

}  // namespace xfrmesh

// What the masquerade table in the kernel holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <unordered_map>

#include "masquerade/holdings.h"

namespace xfrmesh {

// Comments of elements are its own. Of a rule no more is kept than whose it is, and its handle.
class Ledger {
 public:
  [[nodiscard]] const Holdings& rows() const { return rows_; }
  void reserve(std::size_t more) { rows_.reserve(more); }
  void addRule(const Key& owner, double handle);
  void addElement(const Row& mapping);
  void remove(std::uint32_t row);
  // Of an element.
  [[nodiscard]] const CommentSlot& commentOf(std::uint32_t row) const { return comments_[row]; }

  // How many elements lead to that subnet's chain, and how many there are of a family.
  [[nodiscard]] std::uint32_t elementsOn(const Subnet& subnet) const;
  [[nodiscard]] std::uint32_t elementsOf(std::uint8_t family) const;

 private:
  Holdings rows_;
  std::deque<CommentSlot> comments_;  // by row
  std::unordered_map<Subnet, std::uint32_t, SubnetHash> elements_;
};

}  // namespace xfrmesh

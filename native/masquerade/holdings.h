// Mappings by the thousand: a row for each, found by its owner and, if an element holds it, by its address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "masquerade/subnet.h"
#include "nft/transaction.h"

namespace xfrmesh {

// What holds a mapping.
enum class Kind : std::uint8_t { kNone, kRule, kElement };

constexpr std::uint32_t kNoRow = 0xffffffff;

struct Row {
  Kind kind;
  Key owner;  // zeroes are nobody's
  // Of a rule that was read no more is known than whose it is.
  Key address;
  Subnet subnet;
  const CommentSlot* comment;   // somebody else's
  double handle = 0;            // of a rule that the kernel has
  std::uint32_t next = kNoRow;  // of the same owner
};

// Finds rows by a key of theirs, which is in it once: open addressing, linear probing, never more than half full.
class RowIndex {
 public:
  explicit RowIndex(Key Row::*key) : key_(key) {}
  // kNoRow if there is none.
  [[nodiscard]] std::uint32_t find(const std::vector<Row>& rows, const Key& key) const;
  void add(const std::vector<Row>& rows, std::uint32_t row);
  void remove(const std::vector<Row>& rows, std::uint32_t row);
  // Makes room for so many.
  void reserve(const std::vector<Row>& rows, std::size_t count);

 private:
  [[nodiscard]] std::size_t home(const Key& key) const;

  Key Row::*key_;
  std::vector<std::uint32_t> places_;  // kNoRow where there is none; a power of two of them
  std::size_t count_ = 0;
};

class Holdings {
 public:
  [[nodiscard]] const Row& operator[](std::uint32_t row) const { return rows_[row]; }
  // One more than the last row. Some have nothing: their kind says so.
  [[nodiscard]] std::uint32_t end() const { return static_cast<std::uint32_t>(rows_.size()); }
  // The first row of an owner; `next` has the others.
  [[nodiscard]] std::uint32_t of(const Key& owner) const;
  // The row of the element for an address.
  [[nodiscard]] std::uint32_t at(const Key& address) const { return byAddress_.find(rows_, address); }

  // Makes room for so many more, and then for some.
  void reserve(std::size_t more);
  // Of an element the address is that of no other.
  std::uint32_t add(const Row& mapping);
  void remove(std::uint32_t row);
  // Has a rule hold what an element did.
  void demote(std::uint32_t row);

 private:
  std::vector<Row> rows_;
  std::vector<std::uint32_t> free_;
  RowIndex byOwner_{&Row::owner};  // the first of each
  RowIndex byAddress_{&Row::address};
};

}  // namespace xfrmesh

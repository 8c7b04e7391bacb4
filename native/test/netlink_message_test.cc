#include <array>
#include <vector>

#include "netlink/message.h"
#include "test/check.h"

namespace xfrmesh::test {
namespace {

constexpr std::size_t kHeader = sizeof(nlmsghdr);

std::vector<std::byte> header(std::uint32_t length, std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes;
}

std::vector<std::byte> attributeHeader(std::uint16_t length, std::uint16_t type, std::size_t size) {
  std::vector<std::byte> bytes(size);
  const nlattr head{.nla_len = length, .nla_type = type};
  std::memcpy(bytes.data(), &head, sizeof head);
  return bytes;
}

bool takesMessage(const std::vector<std::byte>& bytes) {
  Bytes rest = bytes;
  Message message{};
  const bool taken = takeMessage(rest, message);
  CHECK(taken || rest.size() == bytes.size());
  return taken;
}

bool takesAttribute(const std::vector<std::byte>& bytes) {
  Bytes rest = bytes;
  Attribute attribute{};
  const bool taken = takeAttribute(rest, attribute);
  CHECK(taken || rest.size() == bytes.size());
  return taken;
}

}  // namespace

TEST(message_whose_length_is_out_of_bounds_is_not_taken) {
  CHECK(!takesMessage({}));
  CHECK(!takesMessage(header(kHeader, kHeader - 1)));
  CHECK(!takesMessage(header(kHeader - 1, kHeader)));
  CHECK(!takesMessage(header(kHeader + 1, kHeader)));
  // What libmnl 1.0.4 takes for valid.
  CHECK(!takesMessage(header(0x80000000, kHeader)));
  CHECK(!takesMessage(header(0xffffffff, kHeader)));
  CHECK(takesMessage(header(kHeader, kHeader)));
}

TEST(messages_are_taken_one_by_one_with_their_padding) {
  std::vector<std::byte> bytes = header(kHeader + 1, kHeader + 4);
  const std::vector<std::byte> second = header(kHeader + 2, kHeader + 2);  // the last may come without padding
  bytes.insert(bytes.end(), second.begin(), second.end());
  Bytes rest = bytes;
  Message message{};
  CHECK(takeMessage(rest, message));
  CHECK_EQ(message.payload.size(), std::size_t{1});
  CHECK(takeMessage(rest, message));
  CHECK_EQ(message.payload.size(), std::size_t{2});
  CHECK(rest.empty());
  CHECK(!takeMessage(rest, message));
}

TEST(attribute_whose_length_is_out_of_bounds_is_not_taken) {
  CHECK(!takesAttribute({}));
  CHECK(!takesAttribute(attributeHeader(0, 1, 4)));
  CHECK(!takesAttribute(attributeHeader(3, 1, 4)));
  CHECK(!takesAttribute(attributeHeader(5, 1, 4)));
  CHECK(!takesAttribute(attributeHeader(0xffff, 1, 8)));
  CHECK(takesAttribute(attributeHeader(4, 1, 4)));
  CHECK(takesAttribute(attributeHeader(5, 1, 5)));
}

TEST(attribute_type_comes_without_flags) {
  const auto bytes = attributeHeader(4, NLA_F_NESTED | NLA_F_NET_BYTEORDER | 7, 4);
  Bytes rest = bytes;
  Attribute attribute{};
  CHECK(takeAttribute(rest, attribute));
  CHECK_EQ(attribute.type, 7);
  CHECK_EQ(attribute.whole.size(), std::size_t{4});
}

TEST(writer_makes_what_the_reader_takes) {
  std::array<std::byte, 64> room{};
  room.fill(std::byte{0xff});
  MessageWriter writer(room, 16, NLM_F_REQUEST, 9);
  writer.appendValue(std::uint32_t{1});
  writer.attribute(3, {bytesOf(std::uint8_t{5}), bytesOf(std::uint16_t{6})});
  const std::size_t size = writer.finish();
  CHECK_EQ(size, kHeader + 4 + 8);

  Bytes rest = Bytes(room).first(size);
  Message message{};
  CHECK(takeMessage(rest, message));
  CHECK(rest.empty());
  CHECK_EQ(message.header.nlmsg_type, 16);
  CHECK_EQ(message.header.nlmsg_flags, NLM_F_REQUEST);
  CHECK_EQ(message.header.nlmsg_seq, 9U);
  Bytes attributes = message.payload.subspan(4);
  Attribute attribute{};
  CHECK(takeAttribute(attributes, attribute));
  CHECK_EQ(attribute.type, 3);
  CHECK_EQ(attribute.payload.size(), std::size_t{3});
  CHECK_EQ(load<std::uint8_t>(attribute.payload), 5);
  CHECK_EQ(load<std::uint16_t>(attribute.payload, 1), 6);
  CHECK(attributes.empty());
  CHECK(room[size - 1] == std::byte{0});  // padding carries nothing over
}

TEST(writer_fills_its_room_to_the_byte_and_no_further) {
  std::array<std::byte, kHeader + 8> room{};
  for (std::size_t size = 0; size <= room.size(); size++) {
    const std::span<std::byte> part(room.data(), size);
    MessageWriter writer(part, 16, 0, 1);
    writer.attributeValue(1, std::uint32_t{7});
    CHECK_EQ(writer.finish(), size == room.size() ? size : 0);
  }
}

TEST(writer_that_ran_out_of_room_stays_so) {
  std::array<std::byte, kHeader + 4> room{};
  MessageWriter writer(room, 16, 0, 1);
  writer.appendValue(std::uint64_t{1});
  writer.appendValue(std::uint32_t{1});
  CHECK_EQ(writer.finish(), std::size_t{0});
}

TEST(attribute_longer_than_its_length_field_does_not_fit) {
  std::vector<std::byte> room(std::size_t{1} << 17);
  const std::vector<std::byte> most(UINT16_MAX - sizeof(nlattr));
  MessageWriter writer(room, 16, 0, 1);
  writer.attribute(1, {most});
  CHECK(writer.finish() > 0);
  MessageWriter beyond(room, 16, 0, 1);
  beyond.attribute(1, {most, bytesOf(std::uint8_t{0})});
  CHECK_EQ(beyond.finish(), std::size_t{0});
}

}  // namespace xfrmesh::test

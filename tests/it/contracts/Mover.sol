// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// Moves the native coin in the ways that no receipt shows, and wraps it as WETH9 does.
contract Mover {
    event Deposit(address indexed dst, uint256 wad);
    event Withdrawal(address indexed src, uint256 wad);

    mapping(address => uint256) public balanceOf;
    Child[] public children;

    receive() external payable {}

    /// Pays each of them.
    function pay(address payable[] calldata to, uint256 amount) external payable {
        for (uint256 i = 0; i < to.length; i++) {
            (bool ok, ) = to[i].call{value: amount}("");
            require(ok, "not paid");
        }
    }

    /// Pays from so many calls inside one another.
    function nest(address payable to, uint256 amount, uint256 depth) external payable {
        if (depth > 0) this.nest(to, amount, depth - 1);
        (bool ok, ) = to.call{value: amount}("");
        require(ok, "not paid");
    }

    /// Pays, and takes it back by failing, inside a transaction that succeeds.
    function pretend(address payable to, uint256 amount) external payable {
        try this.fail(to, amount) {} catch {}
    }

    function fail(address payable to, uint256 amount) external {
        (bool ok, ) = to.call{value: amount}("");
        require(ok, "not paid");
        revert("taken back");
    }

    /// Makes a contract with some of the coin in it.
    function make(uint256 amount) external payable {
        children.push(new Child{value: amount}());
    }

    /// Destroys the newest of them in somebody's favour.
    function destroy(address payable to) external {
        children[children.length - 1].destroy(to);
        children.pop();
    }

    /// Makes and destroys one at once.
    function flash(address payable to, uint256 amount) external payable {
        new Child{value: amount}().destroy(to);
    }

    /// Where a child of that salt is, or would be.
    function place(uint256 salt) external view returns (address) {
        bytes32 code = keccak256(type(Child).creationCode);
        bytes memory parts = abi.encodePacked(bytes1(0xff), address(this), salt, code);
        return address(uint160(uint256(keccak256(parts))));
    }

    /// Makes one at its place.
    function makeAt(uint256 amount, uint256 salt) external payable {
        new Child{value: amount, salt: bytes32(salt)}();
    }

    /// Makes one at its place, destroys it at once, and pays it for nothing before the transaction ends.
    function flashAt(address payable to, uint256 amount, uint256 salt, uint256 wasted) external payable {
        Child child = new Child{value: amount, salt: bytes32(salt)}();
        child.destroy(to);
        (bool ok, ) = address(child).call{value: wasted}("");
        require(ok, "not paid");
    }

    function deposit() external payable {
        balanceOf[msg.sender] += msg.value;
        emit Deposit(msg.sender, msg.value);
    }

    function withdraw(uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        (bool ok, ) = msg.sender.call{value: amount}("");
        require(ok, "not paid");
        emit Withdrawal(msg.sender, amount);
    }
}

contract Child {
    constructor() payable {}

    receive() external payable {}

    function destroy(address payable to) external {
        selfdestruct(to);
    }
}

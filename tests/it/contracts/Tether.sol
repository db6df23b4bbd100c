// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// Moves balances as USDT on Ethereum does: issuing, redeeming and destroying log no transfer, and a transfer may pay a
/// fee to the owner.
contract Tether {
    string public constant name = "Tether USD";
    string public constant symbol = "USDT";
    uint256 public constant decimals = 6;

    address public owner = msg.sender;
    uint256 public totalSupply;
    uint256 public basisPoints;
    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Issue(uint256 amount);
    event Redeem(uint256 amount);
    event DestroyedBlackFunds(address blackListedUser, uint256 balance);

    function setFee(uint256 points) external {
        basisPoints = points;
    }

    function transfer(address to, uint256 value) external {
        uint256 fee = (value * basisPoints) / 10000;
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value - fee;
        if (fee > 0) {
            balanceOf[owner] += fee;
            emit Transfer(msg.sender, owner, fee);
        }
        emit Transfer(msg.sender, to, value - fee);
    }

    function issue(uint256 amount) external {
        balanceOf[owner] += amount;
        totalSupply += amount;
        emit Issue(amount);
    }

    function redeem(uint256 amount) external {
        balanceOf[owner] -= amount;
        totalSupply -= amount;
        emit Redeem(amount);
    }

    function destroyBlackFunds(address user) external {
        uint256 funds = balanceOf[user];
        balanceOf[user] = 0;
        totalSupply -= funds;
        emit DestroyedBlackFunds(user, funds);
    }
}
